//! A slab: values under small keys of index and generation, so that a stale key finds nothing. And
//! a map under the keys of a slab that is kept elsewhere.

/// The key of one use of one entry.
pub(crate) trait SlabKey: Copy + Eq {
    /// The largest index.
    const MAX_INDEX: u32 = u32::MAX;
    /// The largest generation.
    const MAX_GENERATION: u32 = u32::MAX;

    fn new(index: u32, generation: u32) -> Self;
    fn index(self) -> u32;
    fn generation(self) -> u32;
}

/// Values by key. An entry is used again for later values, each with the next generation; after the
/// last generation it is retired, so that no two values ever have the same key.
#[derive(Debug)]
pub(crate) struct Slab<K, T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    len: usize,
    /// The generation of an entry that is new. Those that were freed had lower ones.
    first_generation: u32,
    surplus: Surplus,
    keys: std::marker::PhantomData<K>,
}

/// Decides when to free unused entries: when no value is left, and when the number of values falls
/// below a quarter of its maximum since the last time.
#[derive(Clone, Copy, Debug, Default)]
struct Surplus {
    least: usize,
}

impl Surplus {
    /// Fewer entries are not worth freeing.
    const MIN: usize = 256;

    fn on_insert(&mut self, len: usize) {
        self.least = self.least.max(len / 4);
    }

    /// Returns true if entries should be freed.
    fn on_remove(&mut self, len: usize, entries: usize) -> bool {
        let is_due = entries > Surplus::MIN && (len < self.least || len == 0);
        if is_due {
            self.least = len / 4;
        }
        is_due
    }
}

#[derive(Debug)]
struct Entry<T> {
    /// The generation of the value, or of the next one.
    generation: u32,
    value: Option<T>,
}

impl<K: SlabKey, T> Slab<K, T> {
    /// Returns the key of the next value, `None` if every index is in use.
    pub(crate) fn next_key(&self) -> Option<K> {
        let index = match self.free.last() {
            Some(&index) => index,
            None => u32::try_from(self.entries.len()).ok().filter(|&at| at <= K::MAX_INDEX)?,
        };
        let entry = self.entries.get(index as usize);
        let generation = entry.map_or(self.first_generation, |entry| entry.generation);
        Some(K::new(index, generation))
    }

    /// Adds a value, and returns it with its key.
    ///
    /// # Panics
    ///
    /// If every index is in use: [`next_key`](Slab::next_key) is `None`.
    #[inline(always)]
    pub(crate) fn insert(&mut self, value: T) -> (K, &mut T) {
        let key = self.next_key().expect("an index is free");
        let index = key.index() as usize;
        if self.free.pop().is_none() {
            self.entries.push(Entry { generation: key.generation(), value: None });
        }
        self.len += 1;
        self.surplus.on_insert(self.len);
        (key, self.entries[index].value.insert(value))
    }

    /// Returns a key that no value has, had, or will have.
    ///
    /// # Panics
    ///
    /// As [`insert`](Slab::insert).
    pub(crate) fn take_key(&mut self) -> K {
        let key: K = self.next_key().expect("an index is free");
        if self.free.is_empty() {
            self.entries.push(Entry { generation: key.generation(), value: None });
            self.free.push(key.index());
        }
        self.retire(key.index());
        key
    }

    /// Ends a generation of the next free index. The index is retired after its last generation.
    fn retire(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if entry.generation < K::MAX_GENERATION {
            entry.generation += 1;
        } else {
            self.free.pop();
        }
    }

    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let entry = self.entries.get(key.index() as usize)?;
        entry.value.as_ref().filter(|_| entry.generation == key.generation())
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index() as usize)?;
        entry.value.as_mut().filter(|_| entry.generation == key.generation())
    }

    /// Returns the key and the value that an index has now.
    pub(crate) fn get_index(&self, index: u32) -> Option<(K, &T)> {
        let entry = self.entries.get(index as usize)?;
        Some((K::new(index, entry.generation), entry.value.as_ref()?))
    }

    /// Returns the key and a mutable reference to the value that an index has now.
    pub(crate) fn get_index_mut(&mut self, index: u32) -> Option<(K, &mut T)> {
        let entry = self.entries.get_mut(index as usize)?;
        Some((K::new(index, entry.generation), entry.value.as_mut()?))
    }

    /// Removes a value. Its key finds nothing afterwards.
    #[inline]
    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let entry = self.entries.get_mut(key.index() as usize)?;
        let value = entry.value.take_if(|_| entry.generation == key.generation())?;
        if entry.generation < K::MAX_GENERATION {
            entry.generation += 1;
            self.free.push(key.index());
        }
        self.len -= 1;
        if self.surplus.on_remove(self.len, self.entries.len()) {
            self.free_last();
        }
        Some(value)
    }

    /// Frees the entries behind the last value. Their indices continue with a generation that none
    /// of them has had. Retired entries stay.
    #[cold]
    fn free_last(&mut self) {
        let is_kept =
            |entry: &Entry<T>| entry.value.is_some() || entry.generation == K::MAX_GENERATION;
        let kept = self.entries.iter().rposition(is_kept).map_or(0, |last| last + 1);
        let freed = self.entries[kept..].iter().map(|entry| entry.generation);
        self.first_generation = freed.fold(self.first_generation, u32::max);
        self.entries.truncate(kept);
        self.entries.shrink_to_fit();
        self.free.retain(|&index| (index as usize) < kept);
        self.free.shrink_to_fit();
    }

    /// Returns the number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let value = entry.value.as_ref()?;
            Some((K::new(index as u32, entry.generation), value))
        })
    }

    /// Returns a slab whose first entries have these numbers of generations left.
    #[cfg(test)]
    pub(crate) fn nearly_retired(left: &[u32]) -> Self {
        let entry = |left: &u32| Entry { generation: K::MAX_GENERATION - left, value: None };
        let entries: Vec<_> = left.iter().map(entry).collect();
        Slab { free: (0..entries.len() as u32).collect(), entries, ..Slab::default() }
    }

    /// Returns the number of entries, including free and retired ones.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }
}

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        let (entries, free) = (Vec::new(), Vec::new());
        let surplus = Surplus::default();
        let keys = std::marker::PhantomData;
        Slab { entries, free, len: 0, first_generation: 0, surplus, keys }
    }
}

/// Values under the keys of a slab that is kept elsewhere, one for each index.
#[derive(Debug)]
pub(crate) struct SlotMap<K, T> {
    entries: Vec<Option<(K, T)>>,
    len: usize,
    surplus: Surplus,
}

impl<K: SlabKey, T> SlotMap<K, T> {
    /// Replaces the value of the index, and returns the new one.
    pub(crate) fn insert(&mut self, key: K, value: T) -> &mut T {
        let index = key.index() as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        let entry = &mut self.entries[index];
        self.len += usize::from(entry.is_none());
        self.surplus.on_insert(self.len);
        &mut entry.insert((key, value)).1
    }

    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let (current, value) = self.entries.get(key.index() as usize)?.as_ref()?;
        (*current == key).then_some(value)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (current, value) = self.entries.get_mut(key.index() as usize)?.as_mut()?;
        (*current == key).then_some(value)
    }

    /// Returns the values of two distinct keys.
    pub(crate) fn get_two_mut(&mut self, a: K, b: K) -> Option<[&mut T; 2]> {
        let indices = [a.index() as usize, b.index() as usize];
        // Rust 1.86 has `get_disjoint_mut` for this.
        let (low, high) = (indices[0].min(indices[1]), indices[0].max(indices[1]));
        let (front, back) = self.entries.split_at_mut_checked(high)?;
        let (low, high) = (front.get_mut(low)?.as_mut()?, back.first_mut()?.as_mut()?);
        let [first, second] = if indices[0] < indices[1] { [low, high] } else { [high, low] };
        (first.0 == a && second.0 == b).then_some([&mut first.1, &mut second.1])
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let entry = self.entries.get_mut(key.index() as usize)?;
        let (_, value) = entry.take_if(|(current, _)| *current == key)?;
        self.len -= 1;
        if self.surplus.on_remove(self.len, self.entries.len()) {
            self.free_last();
        }
        Some(value)
    }

    /// Frees the entries behind the last value.
    #[cold]
    fn free_last(&mut self) {
        let kept = self.entries.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.entries.truncate(kept);
        self.entries.shrink_to_fit();
    }

    /// Returns the key and the value that an index has now.
    pub(crate) fn get_index(&self, index: u32) -> Option<(K, &T)> {
        let (key, value) = self.entries.get(index as usize)?.as_ref()?;
        Some((*key, value))
    }

    /// Returns the number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.entries.iter().flatten().map(|(key, _)| *key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.entries.iter().flatten().map(|(key, value)| (*key, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut T)> {
        self.entries.iter_mut().flatten().map(|(key, value)| (*key, value))
    }

    pub(crate) fn clear(&mut self) {
        *self = SlotMap::default();
    }
}

impl<K, T> Default for SlotMap<K, T> {
    fn default() -> Self {
        SlotMap { entries: Vec::new(), len: 0, surplus: Surplus::default() }
    }
}

#[cfg(test)]
mod tests;
