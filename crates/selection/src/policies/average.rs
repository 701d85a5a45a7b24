//! The weighted mean of what all models say.

use super::voting::{self, WEIGHTS};
use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader, contradicts};
use crate::policy::SelectionPolicy;
use crate::value::OutputKind;
use crate::votes::{mean, pooled};

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "average",
    summary: "Asks all models and answers the mean of what they say, element by element. For \
              numbers and vectors.",
    parameters: &[WEIGHTS],
    build,
};

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    if binding.output == OutputKind::Label {
        let why = "labels have no mean; set output to number or vector, or take `majority`";
        return Err(contradicts("output", why.to_owned()));
    }
    voting::build(parameters, binding, |votes, all| pooled(votes, all, mean))
}
