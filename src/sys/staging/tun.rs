//! A virtual network device (`/dev/net/tun`). Its file gets a queue when it is attached.
#![allow(unsafe_code)]

use super::super::checked;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// `TUNSETIFF`, which the libc crate lacks for some C libraries.
const ATTACH: libc::Ioctl = libc::_IOW::<libc::c_int>(b'T' as u32, 202);
/// The name of the device, in a network namespace of its own.
const NAME: &[u8] = b"quintpoll";
const FRAME: [u8; 60] = [0xff; 60];

/// A file of `/dev/net/tun` with `O_NONBLOCK`.
#[derive(Debug)]
pub(crate) struct Tun(File);

impl Tun {
    /// Opens the file without a device.
    pub(crate) fn new() -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        Ok(Tun(options.open("/dev/net/tun")?))
    }

    /// Attaches a device and brings it up. The kernel sends no frames of its own.
    pub(crate) fn attach(&self) -> io::Result<Wire> {
        let mut request = request();
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        ask(self.0.as_fd(), ATTACH, &mut request)?;
        let name = String::from_utf8_lossy(NAME);
        // Fails without IPv6, and then the kernel sends nothing.
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        // SAFETY: only integers are passed.
        let answer =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        checked(answer)?;
        // SAFETY: the kernel has just made the descriptor, and nothing else owns it.
        let socket = File::from(unsafe { OwnedFd::from_raw_fd(answer) });
        ask(socket.as_fd(), libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the call has written this field.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        ask(socket.as_fd(), libc::SIOCSIFFLAGS, &mut request)?;
        ask(socket.as_fd(), libc::SIOCGIFINDEX, &mut request)?;
        // SAFETY: sockaddr_ll is made of integers, for which all zeroes is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        // SAFETY: the call has written this field.
        address.sll_ifindex = unsafe { request.ifr_ifru.ifru_ifindex };
        let (start, length) =
            ((&raw const address).cast(), size_of_val(&address) as libc::socklen_t);
        // SAFETY: the address has this length, and outlives the call.
        checked(unsafe { libc::bind(socket.as_raw_fd(), start, length) })?;
        Ok(Wire(socket))
    }

    /// Reads all pending frames, and returns their count.
    pub(crate) fn drain(&self) -> usize {
        let mut frame = [0; 2048];
        std::iter::from_fn(|| (&self.0).read(&mut frame).ok()).count()
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The sending side; the file of the device reads its frames.
#[derive(Debug)]
pub(crate) struct Wire(File);

impl Wire {
    pub(crate) fn send(&mut self) -> io::Result<()> {
        self.0.write_all(&FRAME)
    }
}

fn request() -> libc::ifreq {
    // SAFETY: ifreq is made of integers and a pointer, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (place, &byte) in request.ifr_name.iter_mut().zip(NAME) {
        *place = byte as libc::c_char;
    }
    request
}

fn ask(fd: BorrowedFd<'_>, what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: these calls read and write one ifreq.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), what, request) })?;
    Ok(())
}
