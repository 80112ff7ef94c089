//! Values under small numbers, which serve as tokens.

/// A vector with holes. A number is used again after its value was removed.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    places: Vec<Option<T>>,
    vacant: Vec<usize>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Slab { places: Vec::new(), vacant: Vec::new() }
    }

    /// The number that the next insertion takes. A source needs its token before there is a value
    /// to insert.
    pub(crate) fn next_index(&self) -> usize {
        self.vacant.last().copied().unwrap_or(self.places.len())
    }

    pub(crate) fn insert(&mut self, value: T) {
        match self.vacant.pop() {
            Some(index) => self.places[index] = Some(value),
            None => self.places.push(Some(value)),
        }
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.places.get_mut(index)?.as_mut()
    }

    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        let value = self.places.get_mut(index)?.take()?;
        self.vacant.push(index);
        Some(value)
    }
}
