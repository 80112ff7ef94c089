//! The blocks of a file.

/// A block of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) offset: u64,
    /// The last block may be shorter than the others.
    pub(crate) length: usize,
}

/// The remaining blocks, in order.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    offset: u64,
    size: u64,
    length: usize,
}

impl Blocks {
    /// Returns the blocks of a file of `size` bytes.
    pub(crate) fn new(size: u64, length: usize) -> Self {
        Blocks { offset: 0, size, length }
    }
}

impl Iterator for Blocks {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
        let left = self.size - self.offset;
        let length = usize::try_from(left).map_or(self.length, |left| left.min(self.length));
        let block = Block { offset: self.offset, length };
        self.offset += length as u64;
        (length > 0).then_some(block)
    }
}
