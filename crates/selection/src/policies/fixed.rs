//! Always the same model.

use crate::kind::{Binding, PolicyKind};
use crate::parameters::{ParameterError, ParameterReader, missing};
use crate::policy::{Pick, Picks, SelectionPolicy, SelectionQuery};
use crate::state::Standing;

pub(crate) const KIND: PolicyKind = PolicyKind {
    name: "fixed",
    summary: "Asks one model, named by its operator. The others stay linked, ready to take over.",
    parameters: &[("model", "the model to ask; required")],
    build,
};

#[derive(Debug)]
struct Fixed {
    arm: Option<usize>,
}

fn build(
    parameters: &mut ParameterReader<'_>,
    binding: &Binding<'_>,
) -> Result<Box<dyn SelectionPolicy>, ParameterError> {
    let model = parameters.model("model")?;
    let model = model.ok_or_else(|| missing("model", "the name of the model to ask"))?;
    Ok(Box::new(Fixed { arm: binding.arm(&model) }))
}

impl SelectionPolicy for Fixed {
    fn select(&self, _: &Standing, _: &SelectionQuery) -> Picks {
        self.arm.map(Pick::certain).into_iter().collect()
    }
}
