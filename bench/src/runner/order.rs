//! Who follows whom: Williams' designs (1949), which are balanced for what a turn leaves to the next one.
//!
//! A start that comes after another machine's meets other caches, clocks and kernel work left over than one that comes
//! after a plain process. If a round were only turned, A B C D B C D A, each would follow the same other in nearly all of
//! them, and that difference would be in all of its samples: of one subject under two names, the two would differ. Here
//! each follows each other once in as many rounds as there are subjects, of an odd number twice in twice as many, and has
//! each place as often as any other. With fewer rounds than that, it is as near to it as can be.

/// The subjects of a round, by number, in the order of their turns.
pub(super) fn order(subjects: usize, round: u32) -> impl Iterator<Item = usize> {
    let shift = round as usize;
    // Of an odd number, the differences of neighbours are half of what they can be, and the others backwards.
    let is_backward = subjects % 2 == 1 && round % 2 == 1;
    (0..subjects).map(move |place| {
        let place = if is_backward { subjects - 1 - place } else { place };
        // 0, 1, n - 1, 2, n - 2, ...: no two neighbours are as far apart, counted around.
        let first = if place % 2 == 1 { place.div_ceil(2) } else { subjects - place / 2 };
        (first + shift) % subjects
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_follows_each_other_and_has_each_place_as_often() {
        for subjects in 1..=9 {
            let rounds = if subjects % 2 == 1 { 2 * subjects } else { subjects };
            let (mut follows, mut places) = (BTreeMap::new(), BTreeMap::new());
            for round in 0..rounds {
                let round: Vec<usize> = order(subjects, round as u32).collect();
                for pair in round.windows(2) {
                    *follows.entry((pair[0], pair[1])).or_insert(0) += 1;
                }
                for (place, subject) in round.into_iter().enumerate() {
                    *places.entry((place, subject)).or_insert(0) += 1;
                }
            }
            let each = rounds / subjects;
            assert_eq!(places.len(), subjects * subjects);
            assert!(places.values().all(|count| *count == each), "{subjects}: {places:?}");
            assert_eq!(follows.len(), subjects * (subjects - 1));
            assert!(follows.values().all(|count| *count == each), "{subjects}: {follows:?}");
        }
    }

    #[test]
    fn a_few_rounds_have_no_pair_twice_nor_anybody_after_himself() {
        for subjects in 3..=9 {
            let turns: Vec<usize> =
                (0..subjects as u32).flat_map(|round| order(subjects, round)).collect();
            assert!(turns.windows(2).all(|pair| pair[0] != pair[1]), "{subjects}: {turns:?}");
        }
        let five: Vec<Vec<usize>> = (1..=5).map(|round| order(6, round).collect()).collect();
        let mut pairs: Vec<&[usize]> = five.iter().flat_map(|round| round.windows(2)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(pairs.len(), 25, "{five:?}");
    }
}
