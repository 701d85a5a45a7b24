//! Which queries are for the new version.

use clipper_domain::rollout::percent::Percent;

use crate::weights::spread;

/// Which of the two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

/// Whom a query is drawn by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    /// The user, who stays with a version; 0 is everybody, whose queries are drawn one by one.
    pub uid: i64,
    pub query_id: u64,
}

/// The side of a query. A user who was given the new version keeps it when the part grows; another
/// rollout draws other users.
#[must_use]
pub fn side(part: Percent, rollout: u64, drawn: Drawn) -> Side {
    let Drawn { uid, query_id } = drawn;
    let unit = if uid == 0 { query_id } else { spread(uid.cast_unsigned()) };
    let place = spread(unit ^ spread(rollout)) as f64 / 2f64.powi(64);
    if place < part.fraction() { Side::New } else { Side::Old }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(number: f64) -> Percent {
        Percent::try_from(number).unwrap()
    }

    #[test]
    fn so_many_queries_are_drawn_as_the_part_says() {
        for part in [1.0, 5.0, 25.0, 50.0, 100.0] {
            let new =
                |id: &u64| side(percent(part), 7, Drawn { uid: 0, query_id: *id }) == Side::New;
            let drawn = (0..100_000).filter(new).count() as f64;
            let expected = part * 1_000.0;
            assert!((drawn - expected).abs() <= 5.0 * expected.sqrt(), "{part}: {drawn}");
        }
    }

    #[test]
    fn a_user_stays_with_a_version_while_the_part_grows() {
        let of =
            |part, uid| side(percent(part), 7, Drawn { uid, query_id: uid.unsigned_abs() * 3 });
        let mut new = 0;
        for uid in 1..2_000 {
            if of(25.0, uid) == Side::New {
                new += 1;
                assert_eq!(of(50.0, uid), Side::New);
                let other = Drawn { uid, query_id: 99 };
                assert_eq!(side(percent(25.0), 7, other), Side::New);
            }
        }
        assert!((400..600).contains(&new), "{new}");
        let others = (1..2_000).filter(|uid| {
            side(percent(25.0), 8, Drawn { uid: *uid, query_id: 0 }) != of(25.0, *uid)
        });
        assert!(others.count() > 400);
    }
}
