//! The tensors in the dictionaries and lists of a checkpoint.

use super::{
    object::{Object, Objects, Value},
    storage::{Storages, read},
};
use crate::{
    error::{Error, Result},
    onnx::weights::TensorMap,
};

/// Maximum number of dictionaries and lists in each other.
const MAX_DEPTH: usize = 32;
/// Maximum length of a tensor's name, in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Maximum number of values that are looked at, in which a shared one counts each time.
const MAX_VALUES: usize = 2_000_000;

/// Returns the tensors of a checkpoint. `file_bytes` bounds what tensors that are not contiguous
/// may copy.
pub(super) fn collect(
    objects: &Objects,
    root: &Value,
    storages: &mut dyn Storages,
    file_bytes: usize,
) -> Result<TensorMap> {
    let mut walk = Walk {
        objects,
        storages,
        budget: file_bytes,
        values: 0,
        tensors: TensorMap::new(),
        module: None,
    };
    walk.visit(root, "", 0)?;
    let has_model = walk.tensors.keys().any(|name| name.ends_with("cls_token"));
    match walk.module {
        Some((place, class)) if !has_model => {
            let (is_script, at) = (
                class.starts_with("__torch__."),
                match place.as_str() {
                    "" => String::new(),
                    place => format!(" at `{place}`"),
                },
            );
            let advice = if is_script {
                "torch.save(torch.jit.load(FILE).state_dict(), \"weights.pth\")"
            } else {
                "torch.save(model.state_dict(), \"weights.pth\")"
            };
            Err(Error::artifact(format!(
                "the file holds a whole module of class {class}{at}, which only its own code can \
                 read, not a state dict; save one where that code is installed: {advice}"
            )))
        }
        _ => Ok(walk.tensors),
    }
}

struct Walk<'a> {
    objects: &'a Objects,
    storages: &'a mut dyn Storages,
    budget: usize,
    values: usize,
    tensors: TensorMap,
    /// Place and class of the first module.
    module: Option<(String, String)>,
}

impl Walk<'_> {
    fn visit(&mut self, value: &Value, name: &str, depth: usize) -> Result<()> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(Error::artifact(format!(
                "the checkpoint has more than {MAX_VALUES} values; save only the weights"
            )));
        }
        if depth > MAX_DEPTH || name.len() > MAX_NAME_BYTES {
            return Ok(());
        }
        if let Some(class) = self.objects.module_class(value) {
            let place = || (name.to_owned(), class.to_owned());
            self.module.get_or_insert_with(place);
            return Ok(());
        }
        let objects = self.objects;
        match objects.get(value) {
            Some(Object::Tensor(tensor)) => {
                if let Some(read) = read(name, tensor, self.storages, &mut self.budget)? {
                    self.tensors.insert(name.to_owned(), read);
                }
            }
            Some(Object::Instance { entries, items, .. }) => {
                for (key, value) in entries {
                    let key = match key {
                        Value::Text(key) => key.to_string(),
                        Value::Int(key) => key.to_string(),
                        _ => continue,
                    };
                    self.visit(value, &join(name, &key), depth + 1)?;
                }
                self.visit_items(items, name, depth)?;
            }
            Some(Object::List(items) | Object::Tuple(items)) => {
                self.visit_items(items, name, depth)?;
            }
            Some(Object::Storage(_)) | None => {}
        }
        Ok(())
    }

    fn visit_items(&mut self, items: &[Value], name: &str, depth: usize) -> Result<()> {
        for (index, item) in items.iter().enumerate() {
            if matches!(item, Value::Object(_)) {
                self.visit(item, &join(name, &index.to_string()), depth + 1)?;
            }
        }
        Ok(())
    }
}

fn join(name: &str, key: &str) -> String {
    if name.is_empty() {
        key.to_owned()
    } else {
        format!("{name}.{key}")
    }
}
