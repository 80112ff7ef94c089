//! The buffer of an operation.

use super::pool::PoolBuf;
use std::fmt;
use std::ops::Deref;

/// The buffer that an operation reads from or writes to. The poller owns it until the operation
/// completes. The completion returns it, whatever the result.
///
/// ```
/// use quintpoll::Buf;
/// let buf = Buf::from(b"hello".to_vec());
/// assert_eq!(&buf[..2], b"he");
/// assert_eq!(buf.into_vec(), b"hello");
/// ```
#[derive(Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Buf {
    /// No bytes.
    #[default]
    None,
    /// A buffer to send from, or to receive into: received bytes are appended.
    Vec(Vec<u8>),
    /// A buffer to send from.
    Static(&'static [u8]),
    /// A buffer to send from, or to receive into, up to its capacity.
    Pool(PoolBuf),
    /// The buffers of a vectored operation, in order. Derefs to an empty slice: see
    /// [`into_many`](Buf::into_many).
    Many(Box<[Buf]>),
}

impl Buf {
    /// Returns the bytes; copies them unless they are in a `Vec`.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Buf::None => Vec::new(),
            Buf::Vec(bytes) => bytes,
            Buf::Static(bytes) => bytes.to_vec(),
            Buf::Pool(bytes) => bytes.to_vec(),
            Buf::Many(bufs) => bufs.into_vec().into_iter().flat_map(Buf::into_vec).collect(),
        }
    }

    /// Returns the buffers of `Many`, or this one.
    pub fn into_many(self) -> Vec<Buf> {
        match self {
            Buf::Many(bufs) => bufs.into_vec(),
            one => vec![one],
        }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Buf::None | Buf::Many(_) => &[],
            Buf::Vec(bytes) => bytes,
            Buf::Static(bytes) => bytes,
            Buf::Pool(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buf {
    /// Shows kind and length, not the bytes, which may be many and private.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Buf::None => f.write_str("None"),
            Buf::Vec(bytes) => write!(f, "Vec({} of {} bytes)", bytes.len(), bytes.capacity()),
            Buf::Static(bytes) => write!(f, "Static({} bytes)", bytes.len()),
            Buf::Pool(bytes) => write!(f, "Pool({} of {} bytes)", bytes.len(), bytes.capacity()),
            Buf::Many(bufs) => f.debug_list().entries(bufs).finish(),
        }
    }
}

impl From<Vec<u8>> for Buf {
    fn from(bytes: Vec<u8>) -> Self {
        Buf::Vec(bytes)
    }
}

impl From<PoolBuf> for Buf {
    fn from(bytes: PoolBuf) -> Self {
        Buf::Pool(bytes)
    }
}

impl From<&'static [u8]> for Buf {
    fn from(bytes: &'static [u8]) -> Self {
        Buf::Static(bytes)
    }
}

impl<const N: usize> From<&'static [u8; N]> for Buf {
    fn from(bytes: &'static [u8; N]) -> Self {
        Buf::Static(bytes)
    }
}

impl From<&'static str> for Buf {
    fn from(text: &'static str) -> Self {
        Buf::Static(text.as_bytes())
    }
}

impl From<String> for Buf {
    fn from(text: String) -> Self {
        Buf::Vec(text.into_bytes())
    }
}
