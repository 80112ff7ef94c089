//! Socket addresses of every family, and their conversion to and from `sockaddr`.

use crate::sys::io_call::SockAddr;
use std::ffi::OsStr;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net;

/// The address of a socket.
///
/// ```
/// use quintpoll::Address;
/// let local: std::net::SocketAddr = "[::1]:80".parse().expect("an address");
/// assert!(matches!(Address::from(local), Address::Inet(_)));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[doc(alias = "sockaddr")]
pub enum Address {
    /// IPv4 or IPv6.
    Inet(SocketAddr),
    /// A path, a name in the abstract namespace, or unnamed (unix(7)).
    Unix(Box<net::SocketAddr>),
    /// An address of another family: the bytes of its `sockaddr`, which begin with the family.
    Other(Vec<u8>),
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Inet(address)
    }
}

impl From<net::SocketAddr> for Address {
    fn from(address: net::SocketAddr) -> Self {
        Address::Unix(Box::new(address))
    }
}

const FAMILY: usize = size_of::<libc::sa_family_t>();

impl Address {
    /// Returns the address as a `sockaddr`.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the address is longer than any `sockaddr`.
    pub(crate) fn to_name(&self) -> io::Result<SockAddr> {
        let mut bytes = Vec::new();
        match self {
            Address::Inet(SocketAddr::V4(address)) => {
                bytes.extend((libc::AF_INET as libc::sa_family_t).to_ne_bytes());
                bytes.extend(address.port().to_be_bytes());
                bytes.extend(address.ip().octets());
                bytes.resize(size_of::<libc::sockaddr_in>(), 0);
            }
            Address::Inet(SocketAddr::V6(address)) => {
                bytes.extend((libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
                bytes.extend(address.port().to_be_bytes());
                bytes.extend(address.flowinfo().to_ne_bytes());
                bytes.extend(address.ip().octets());
                bytes.extend(address.scope_id().to_ne_bytes());
            }
            Address::Unix(address) => {
                bytes.extend((libc::AF_UNIX as libc::sa_family_t).to_ne_bytes());
                if let Some(path) = address.as_pathname() {
                    bytes.extend(path.as_os_str().as_bytes());
                    bytes.push(0);
                } else if let Some(name) = address.as_abstract_name() {
                    bytes.push(0);
                    bytes.extend(name);
                }
            }
            Address::Other(address) => bytes.extend(address),
        }
        SockAddr::new(&bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "longer than the address of any socket")
        })
    }

    /// Converts the `sockaddr` that the kernel wrote. Returns `None` if it wrote none.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        let (family, rest) = name.split_first_chunk::<FAMILY>()?;
        let known = match i32::from(libc::sa_family_t::from_ne_bytes(*family)) {
            libc::AF_INET => inet(rest),
            libc::AF_INET6 => inet6(rest),
            libc::AF_UNIX => unix(rest),
            _ => None,
        };
        Some(known.unwrap_or_else(|| Address::Other(name.to_vec())))
    }
}

/// Removes and returns the first `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn inet(mut bytes: &[u8]) -> Option<Address> {
    let port = u16::from_be_bytes(take(&mut bytes)?);
    let ip = Ipv4Addr::from(take::<4>(&mut bytes)?);
    Some(Address::Inet(SocketAddrV4::new(ip, port).into()))
}

fn inet6(mut bytes: &[u8]) -> Option<Address> {
    let port = u16::from_be_bytes(take(&mut bytes)?);
    let flow = u32::from_ne_bytes(take(&mut bytes)?);
    let ip = Ipv6Addr::from(take::<16>(&mut bytes)?);
    let scope = u32::from_ne_bytes(take(&mut bytes)?);
    Some(Address::Inet(SocketAddrV6::new(ip, port, flow, scope).into()))
}

fn unix(bytes: &[u8]) -> Option<Address> {
    let address = match bytes {
        [0, name @ ..] => net::SocketAddr::from_abstract_name(name),
        path => {
            let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
            net::SocketAddr::from_pathname(OsStr::from_bytes(&path[..end]))
        }
    };
    address.ok().map(Address::from)
}

#[cfg(test)]
mod tests;
