//! Buffers that nobody uses at the moment.

/// Pages of a new one into which nothing is received cost no memory.
pub(super) const LENGTH: usize = 16 * 1024;
/// So many are kept.
const MOST: usize = 256;

/// An idle connection has one buffer, a busy one two: the second is lent from here.
#[derive(Debug, Default)]
pub(super) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// An empty one. The last given back comes first, while the caches remember it.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    pub(super) fn give_back(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < MOST {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}
