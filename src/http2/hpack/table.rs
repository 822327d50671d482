//! The two tables of HPACK: what everybody knows, and what was said before on the connection (RFC 7541 §2.3).

use std::collections::VecDeque;

/// What everybody knows (appendix A), from index 1 on.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What an entry counts beside its bytes (§4.1).
const OVERHEAD: usize = 32;

/// What was said before: the newest is the first, and the oldest leave when there is no more room.
///
/// The bytes of all entries stand behind one another in one buffer, which is moved together when as much of it is of no
/// more use as may be in use: nothing is allocated for an entry.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    bytes: Vec<u8>,
    /// The oldest at the front.
    entries: VecDeque<Entry>,
    size: usize,
    /// The most it may be.
    most: usize,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    name: usize,
    value: usize,
}

impl Entry {
    fn size(self) -> usize {
        self.name + self.value + OVERHEAD
    }
}

impl Dynamic {
    pub(super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Changes how large it may be.
    pub(super) fn resize(&mut self, most: usize) {
        self.most = most;
        self.evict(0);
    }

    /// The name and the value of the entry that was the `nth` before the newest.
    pub(super) fn get(&self, nth: usize) -> Option<(&[u8], &[u8])> {
        let at = self.entries.len().checked_sub(nth + 1)?;
        let Entry { start, name, value } = *self.entries.get(at)?;
        self.bytes.get(start..start + name + value)?.split_at_checked(name)
    }

    /// Adds an entry; one that is larger than all may be leaves none (§4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let entry = Entry { start: 0, name: name.len(), value: value.len() };
        self.evict(entry.size());
        if entry.size() > self.most {
            return;
        }
        let oldest = self.entries.front().map_or(self.bytes.len(), |oldest| oldest.start);
        if oldest > self.most {
            self.bytes.drain(..oldest);
            self.entries.iter_mut().for_each(|entry| entry.start -= oldest);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += entry.size();
        self.entries.push_back(Entry { start, ..entry });
    }

    /// Lets the oldest go until there is so much room.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.most
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
        }
        if self.entries.is_empty() {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_newest_is_the_first_and_the_oldest_leaves() {
        let mut table = Dynamic::new(100);
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        assert_eq!((table.get(0), table.get(1)), (Some((&b"b"[..], &b"2"[..])), Some((&b"a"[..], &b"1"[..]))));
        table.insert(b"c", b"3");
        assert_eq!((table.get(1), table.get(2)), (Some((&b"b"[..], &b"2"[..])), None));
        table.resize(40);
        assert_eq!((table.get(0), table.get(1)), (Some((&b"c"[..], &b"3"[..])), None));
        table.insert(b"large", &[b'x'; 40]);
        assert_eq!(table.get(0), None, "what is larger than all leaves nothing");
    }

    proptest! {
        #[test]
        fn it_is_what_a_list_of_pairs_is(
            pairs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..200)), 0..200),
            most in 0_usize..600,
        ) {
            let mut table = Dynamic::new(most);
            let mut list: VecDeque<(Vec<u8>, Vec<u8>)> = VecDeque::new();
            let size = |list: &VecDeque<(Vec<u8>, Vec<u8>)>| list.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>();
            for (name, value) in pairs {
                table.insert(&name, &value);
                list.push_front((name, value));
                while size(&list) > most {
                    list.pop_back();
                }
                for (nth, (name, value)) in list.iter().enumerate() {
                    prop_assert_eq!(table.get(nth), Some((&**name, &**value)));
                }
                prop_assert_eq!(table.get(list.len()), None);
                prop_assert!(table.bytes.len() <= 2 * most);
            }
        }
    }
}
