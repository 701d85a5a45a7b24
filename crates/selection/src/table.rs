//! Every policy there is.

use clipper_domain::DEFAULT_POLICY;

use super::kind::PolicyKind;
use super::policies::{
    average, cascade, epsilon_greedy, exp3, exp4, fixed, majority, median, thompson, ucb1, weighted,
};

/// Those besides the default one, as users are shown them.
pub const TABLE: &[PolicyKind] = &[
    fixed::KIND,
    weighted::KIND,
    exp3::KIND,
    exp4::KIND,
    epsilon_greedy::KIND,
    ucb1::KIND,
    thompson::KIND,
    majority::KIND,
    average::KIND,
    median::KIND,
    cascade::KIND,
];

/// The parameters that every policy has.
pub const COMMON: &[(&str, &str)] = &[
    (
        "output",
        "what the models' outputs are: `label`, `number` or `vector` (of probabilities, one for \
         each class); default `label`",
    ),
    (
        "loss",
        "how wrong an output is: `zero_one` (labels, vectors), `absolute`, `squared` (numbers, \
         vectors) or `given` (feedback says it); default `zero_one`, for numbers `absolute`",
    ),
    (
        "loss_scale",
        "the distance from the truth that counts as entirely wrong, for `absolute` and `squared`; \
         default 1",
    ),
    (
        "min_confidence",
        "an answer that is less sure, 0 to 1, becomes the default output; default 0",
    ),
    (
        "window",
        "how much of the latest feedback counts, in observations, 8 to 1000000000; default: all. \
         With a window a model that was broken and repaired is found again",
    ),
];

/// A policy by name; the default one is none.
#[must_use]
pub fn find(name: &str) -> Option<&'static PolicyKind> {
    TABLE.iter().find(|kind| kind.name == name)
}

/// Every name, the default policy's first.
#[must_use]
pub fn names() -> Vec<&'static str> {
    std::iter::once(DEFAULT_POLICY).chain(TABLE.iter().map(|kind| kind.name)).collect()
}
