//! The ONNX-ML operator `Scaler`, which scikit-learn's `StandardScaler` is exported as and which
//! tract does not bring along: `(x - offset) * scale` per feature.

use std::sync::Arc;

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::{cast::cast, math};
use tract_onnx::tract_hir::internal::{
    Datum as _, DatumType, Expansion, InferenceOp, InferenceResult, OutletId, Solver,
    SpecialOps as _, StaticName, TVec, Tensor, TensorProxy, TractResult, TypedModel,
    check_input_arity, check_output_arity, expand, rctensor1,
};

/// Adds what is missing to `register`.
pub(super) fn register(register: &mut OnnxOpRegister) {
    register.insert("Scaler", scaler);
}

#[derive(Debug, Clone, Hash, PartialEq, Eq)]
struct Scaler {
    offset: Arc<Tensor>,
    scale: Arc<Tensor>,
}

fn scaler(
    _context: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let offset: Vec<f32> = node.get_attr_vec("offset")?;
    let scale: Vec<f32> = node.get_attr_vec("scale")?;
    let op = Scaler { offset: rctensor1(&offset), scale: rctensor1(&scale) };
    Ok((expand(op), vec![]))
}

impl Expansion for Scaler {
    fn name(&self) -> StaticName {
        "Scaler".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, DatumType::F32)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let rank = model.outlet_fact(inputs[0])?.rank();
        let mut constant = |name: &str, tensor: &Arc<Tensor>| {
            let tensor = tensor.as_ref().clone().broadcast_into_rank(rank)?;
            model.add_const(format!("{prefix}.{name}"), tensor)
        };
        let offset = constant("offset", &self.offset)?;
        let scale = constant("scale", &self.scale)?;
        let x = model.wire_node(format!("{prefix}.to_f32"), cast(f32::datum_type()), inputs)?[0];
        let x = model.wire_node(format!("{prefix}.sub"), math::sub(), &[x, offset])?[0];
        model.wire_node(format!("{prefix}.mul"), math::mul(), &[x, scale])
    }
}
