//! Reads and replaces parameters by name, and finds their gradients.
//!
//! A parameter's name is the path of fields to it. The fields have the names of Meta's code, as in
//! `backbone.blocks.0.attn.qkv.weight`.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Gradients, Tensor, TensorData},
};

/// Tensors by name, flattened, since operations on parameters are elementwise.
pub type FlatTensors = BTreeMap<String, Tensor<1>>;

/// A parameter of a module. Its values stay on the device and are not copied.
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Tensor<1>,
}

/// Returns all parameters, in the order of the module.
pub(crate) fn parameters(module: &impl Module) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    visit(module, None, &mut |name, shape, tensor| {
        parameters.push(Parameter {
            name: name.to_owned(),
            shape: shape.to_vec(),
            values: tensor.inner(),
        });
    });
    parameters
}

/// Returns the values of all parameters by name.
pub fn flatten(module: &impl Module) -> FlatTensors {
    parameters(module)
        .into_iter()
        .map(|parameter| (parameter.name, parameter.values))
        .collect()
}

/// Takes the gradients of the parameters that the loss depends on.
pub(crate) fn gradients_of(module: &impl Module, gradients: &mut Gradients) -> FlatTensors {
    let mut tensors = FlatTensors::new();
    visit(module, Some(gradients), &mut |name, _, gradient| {
        tensors.insert(name.to_owned(), gradient);
    });
    tensors
}

/// Replaces every parameter by the result of `change` for its name, shape and values.
pub(crate) fn map_parameters<M: Module>(
    module: M,
    change: impl FnMut(&str, &[usize], Tensor<1>) -> Tensor<1>,
) -> M {
    module.map(&mut Mapper {
        path: Path::default(),
        change,
    })
}

/// Replaces every parameter by the values that `read` returns for its name and shape. The number of
/// values must match the shape.
///
/// # Errors
/// The first error of `read`.
pub fn load<M: Module, E>(
    module: M,
    mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
) -> Result<M, E> {
    let mut failed = None;
    let module = map_parameters(module, |name, shape, tensor| {
        if failed.is_some() {
            return tensor;
        }
        match read(name, shape) {
            Ok(values) => {
                let count = values.len();
                Tensor::from_data(TensorData::new(values, [count]), &tensor.device())
            }
            Err(error) => {
                failed = Some(error);
                tensor
            }
        }
    });
    failed.map_or(Ok(module), Err)
}

/// The fields on the path to a visitor's position.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    /// Returns whether the container's fields are part of the name. Variants of an enumeration are
    /// not: Meta's names have no part for them.
    fn is_named(container: &str) -> bool {
        !container.starts_with("Enum:")
    }

    fn enter(&mut self, name: &str, container: &str) {
        if Self::is_named(container) {
            self.0.push(name.to_owned());
        }
    }

    fn exit(&mut self, container: &str) {
        if Self::is_named(container) {
            self.0.pop();
        }
    }

    fn name(&self) -> String {
        self.0.join(".")
    }
}

/// Calls `action` with the name, shape and values of every parameter, or of the gradients that
/// exist.
fn visit(
    module: &impl Module,
    gradients: Option<&mut Gradients>,
    action: &mut dyn FnMut(&str, &[usize], Tensor<1>),
) {
    module.visit(&mut Visitor {
        path: Path::default(),
        gradients,
        action,
    });
}

struct Visitor<'a> {
    path: Path,
    gradients: Option<&'a mut Gradients>,
    action: &'a mut dyn FnMut(&str, &[usize], Tensor<1>),
}

impl ModuleVisitor for Visitor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match &mut self.gradients {
            Some(gradients) => param.val().grad_remove(gradients),
            None => Some(param.val()),
        };
        if let Some(tensor) = tensor {
            let shape = tensor.dims();
            (self.action)(&self.path.name(), &shape, flat(tensor));
        }
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }
}

struct Mapper<F> {
    path: Path,
    change: F,
}

impl<F: FnMut(&str, &[usize], Tensor<1>) -> Tensor<1>> ModuleMapper for Mapper<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let shape = tensor.dims();
            (self.change)(&self.path.name(), &shape, flat(tensor)).reshape(shape)
        })
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count = tensor.shape().num_elements();
    tensor.reshape([count])
}
