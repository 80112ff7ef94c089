//! The bytes that go through a file in one direction, by plain reckoning.

use std::cell::RefCell;
use std::collections::VecDeque;

thread_local! {
    /// The bytes of every flow, from the first on, as far as one has come: all make the same.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What was sent and has not been received: a stream, or messages.
#[derive(Debug)]
pub struct Flow {
    has_messages: bool,
    /// Those of a stream may be cut anywhere.
    queue: VecDeque<Piece>,
    /// How many bytes were ever made for it.
    made: usize,
}

/// What was sent at once, and the files that go with its first byte.
#[derive(Debug, Default, PartialEq, Eq)]
struct Piece {
    bytes: Vec<u8>,
    files: Vec<u64>,
}

/// What was received is not what was sent.
pub type Mismatch = String;

impl Flow {
    /// Nothing.
    pub fn new(has_messages: bool) -> Self {
        Flow { has_messages, queue: VecDeque::new(), made: 0 }
    }

    /// The next bytes, which tell their place in the order.
    pub fn make(&mut self, length: usize) -> Vec<u8> {
        let part = self.made..self.made + length;
        self.made = part.end;
        // Multiplicative hashing, of which the upper bits are the good ones.
        let byte = |at: usize| ((at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        BYTES.with_borrow_mut(|bytes| {
            bytes.extend((bytes.len()..part.end).map(byte));
            bytes[part].to_vec()
        })
    }

    /// How many bytes there are.
    pub fn length(&self) -> usize {
        self.queue.iter().map(|piece| piece.bytes.len()).sum()
    }

    /// Whether there is nothing, not even an empty message.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// These were sent.
    pub fn put(&mut self, bytes: &[u8]) {
        self.put_with(bytes, Vec::new());
    }

    /// These were sent, with files.
    pub fn put_with(&mut self, bytes: &[u8], files: Vec<u64>) {
        if self.has_messages || !bytes.is_empty() {
            self.queue.push_back(Piece { bytes: bytes.to_vec(), files });
        }
    }

    /// The first of the bytes.
    pub fn first(&self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        for Piece { bytes, .. } in &self.queue {
            let left = count - all.len();
            all.extend_from_slice(&bytes[..left.min(bytes.len())]);
        }
        all
    }

    /// Returns true if the next message has no bytes.
    pub fn begins_empty(&self) -> bool {
        self.queue.front().is_some_and(|message| message.bytes.is_empty())
    }

    /// Whether the next message is longer than this.
    pub fn exceeds(&self, room: usize) -> bool {
        self.queue.front().is_some_and(|message| message.bytes.len() > room)
    }

    /// These were received, by one call that had room for so many. Gives the files that came along.
    ///
    /// # Errors
    ///
    /// If they are not those that come next.
    pub fn take(&mut self, bytes: &[u8], room: usize) -> Result<Vec<u64>, Mismatch> {
        if self.has_messages {
            let Some(Piece { bytes: message, files }) = self.queue.pop_front() else {
                return Err(format!("a message of {} bytes that nobody sent", bytes.len()));
            };
            let whole = &message[..room.min(message.len())];
            return match whole == bytes {
                true => Ok(files),
                false => Err(format!("not the next message: {}", differing(whole, bytes))),
            };
        }
        let (mut rest, mut files) = (bytes, Vec::new());
        while !rest.is_empty() {
            let Some(Piece { bytes: part, files: its }) = self.queue.front_mut() else {
                return Err(format!("{} bytes too many of {}", rest.len(), bytes.len()));
            };
            files.append(its);
            let count = part.len().min(rest.len());
            if part[..count] != rest[..count] {
                return Err(format!("not the next: {}", differing(&part[..count], &rest[..count])));
            }
            rest = &rest[count..];
            part.drain(..count);
            if part.is_empty() {
                self.queue.pop_front();
            }
        }
        Ok(files)
    }

    /// What is left was received in these pieces, but for something at the beginning. Gives how
    /// many bytes or messages are missing.
    ///
    /// # Errors
    ///
    /// If they are not the end of what was sent.
    pub fn take_end(&mut self, pieces: &[Vec<u8>]) -> Result<usize, Mismatch> {
        let all: Vec<Vec<u8>> = self.take_all();
        if self.has_messages {
            return match all.ends_with(pieces) {
                true => Ok(all.len() - pieces.len()),
                false => Err("not the last messages".to_owned()),
            };
        }
        let (all, end) = (all.concat(), pieces.concat());
        match all.ends_with(&end) {
            true => Ok(all.len() - end.len()),
            false => Err(format!("{} bytes that are not the last of {}", end.len(), all.len())),
        }
    }

    /// There is nobody who could receive them any more.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    /// Takes what there is, in pieces.
    pub fn take_all(&mut self) -> Vec<Vec<u8>> {
        self.queue.drain(..).map(|piece| piece.bytes).collect()
    }

    /// Whether this could have come from these operations, each of which has sent its beginning, or
    /// if they are messages all or nothing.
    pub fn is_from(&self, payloads: &[&[u8]]) -> bool {
        match self.has_messages {
            true => {
                let mut payloads = payloads.iter();
                self.queue.iter().all(|message| payloads.any(|&payload| payload == message.bytes))
            }
            false => {
                let all = self.first(usize::MAX);
                consists_of(&all, payloads)
            }
        }
    }
}

fn consists_of(bytes: &[u8], payloads: &[&[u8]]) -> bool {
    let Some((first, others)) = payloads.split_first() else { return bytes.is_empty() };
    let alike = count_alike(bytes, first);
    (0..=alike).rev().any(|count| consists_of(&bytes[count..], others))
}

/// Returns how long the common beginning is.
fn count_alike(ones: &[u8], others: &[u8]) -> usize {
    let shorter = ones.len().min(others.len());
    // Nearly always it is all of the shorter one, which one comparison tells.
    match ones[..shorter] == others[..shorter] {
        true => shorter,
        false => ones.iter().zip(others).take_while(|(one, other)| one == other).count(),
    }
}

fn differing(sent: &[u8], received: &[u8]) -> String {
    let at = count_alike(sent, received);
    format!("{} bytes for {}, other ones from {at} on", received.len(), sent.len())
}
