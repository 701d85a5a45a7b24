//! What most models say.

use super::voting::{self, WEIGHTS};
use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader, contradicts};
use crate::policy::SelectionPolicy;
use crate::value::OutputKind;
use crate::votes::majority;

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "majority",
    summary: "Asks all models and answers what most of them say; the confidence is the part that \
              agrees. For labels.",
    parameters: &[WEIGHTS],
    build,
};

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    if binding.output != OutputKind::Label {
        let why = "`majority` votes on labels; `average` and `median` are for numbers and vectors";
        return Err(contradicts("output", why.to_owned()));
    }
    voting::build(parameters, binding, majority)
}
