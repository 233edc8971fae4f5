//! Parameters by name: read, replaced, and matched with their gradients.
//!
//! A parameter's name is the path of fields to it, which are called as in Meta's code:
//! `backbone.blocks.0.attn.qkv.weight`.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Gradients, Tensor, TensorData},
};

/// Tensors by name, flattened: what is done to parameters is done to each value alike.
pub type FlatTensors = BTreeMap<String, Tensor<1>>;

/// The names and shapes of all parameters, in the order of the module.
pub fn names_of(module: &impl Module) -> Vec<(String, Vec<usize>)> {
    let mut names = Vec::new();
    visit(module, &mut |name, shape, _| {
        names.push((name.to_owned(), shape.to_vec()));
    });
    names
}

/// The values of all parameters. On the device; nothing is copied.
pub fn flatten(module: &impl Module) -> FlatTensors {
    let mut tensors = FlatTensors::new();
    visit(module, &mut |name, _, tensor| {
        tensors.insert(name.to_owned(), tensor.inner());
    });
    tensors
}

/// The gradients of a module that was trained on: of each parameter that the loss depends on.
pub(crate) fn gradients_of(module: &impl Module, gradients: &mut Gradients) -> FlatTensors {
    let mut visitor = GradientVisitor {
        path: Path::default(),
        gradients,
        found: FlatTensors::new(),
    };
    module.visit(&mut visitor);
    visitor.found
}

/// Replaces every parameter by what `change` makes of its name, shape and values.
pub(crate) fn change<M: Module>(
    module: M,
    change: impl FnMut(&str, &[usize], Tensor<1>) -> Tensor<1>,
) -> M {
    module.map(&mut Mapper {
        path: Path::default(),
        change,
    })
}

/// Replaces every parameter by the values that `read` gives for its name and shape.
///
/// # Errors
/// The first that `read` gives; values of another number than the shape has are its fault.
pub fn load<M: Module, E>(
    module: M,
    mut read: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, E>,
) -> Result<M, E> {
    let mut failed = None;
    let module = change(module, |name, shape, tensor| {
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

/// The fields on the way to where a visitor is.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    /// The variants of an enumeration are no fields, and Meta's names have no part for them.
    fn counts(container: &str) -> bool {
        !container.starts_with("Enum:")
    }

    fn enter(&mut self, name: &str, container: &str) {
        if Self::counts(container) {
            self.0.push(name.to_owned());
        }
    }

    fn exit(&mut self, container: &str) {
        if Self::counts(container) {
            self.0.pop();
        }
    }

    fn name(&self) -> String {
        self.0.join(".")
    }
}

fn visit(module: &impl Module, look: &mut dyn FnMut(&str, &[usize], Tensor<1>)) {
    module.visit(&mut Visitor {
        path: Path::default(),
        look,
    });
}

struct Visitor<'a> {
    path: Path,
    look: &'a mut dyn FnMut(&str, &[usize], Tensor<1>),
}

impl ModuleVisitor for Visitor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims();
        (self.look)(&self.path.name(), &shape, flat(tensor));
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }
}

struct GradientVisitor<'a> {
    path: Path,
    gradients: &'a mut Gradients,
    found: FlatTensors,
}

impl ModuleVisitor for GradientVisitor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(self.gradients) {
            self.found.insert(self.path.name(), flat(gradient));
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
