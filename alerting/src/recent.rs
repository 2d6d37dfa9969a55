//! What is remembered, within bounds.

use std::collections::{HashMap, VecDeque};

/// Entries that are kept unless said otherwise: settled alerts and messages, so that a redelivered event of one isn't
/// told again.
pub(crate) const REMEMBERED: usize = 100_000;

/// A map that forgets its oldest entries beyond a number of them.
#[derive(Debug, Clone)]
pub(crate) struct Recent<K, V> {
    most: usize,
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self::of(REMEMBERED)
    }
}

impl<K, V> Recent<K, V> {
    pub(crate) fn of(most: usize) -> Self {
        Self { most, map: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Recent<K, V> {
    /// Rare: it looks through the order.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.map.remove(key)?;
        self.order.retain(|held| held != key);
        Some(value)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.map.get_mut(key)
    }

    /// In the order in which keys came, the newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (&K, &V)> {
        self.order.iter().rev().filter_map(|key| Some((key, self.map.get(key)?)))
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
    }
}
