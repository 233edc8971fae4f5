//! The tensors in the dictionaries and lists of a checkpoint.

use std::collections::HashSet;

use super::{
    object::{Object, Objects, Value},
    storage::{Storages, read},
};
use crate::{
    error::{Error, Result},
    onnx::weights::{Checkpoint, Unread},
};

/// Maximum number of dictionaries and lists in each other.
const MAX_DEPTH: usize = 32;
/// Maximum length of a tensor's name, in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Maximum number of objects that are remembered because they cannot be read.
const MAX_UNREAD: usize = 10_000;
/// Maximum number of values that are looked at, in which a shared one counts each time.
const MAX_VALUES: usize = 2_000_000;

/// Maximum number of tensors, in which a shared one counts each time.
const MAX_TENSORS: usize = 200_000;

/// Returns the tensors of a checkpoint. `file_bytes` bounds what tensors that are not contiguous
/// may copy.
pub(super) fn collect(
    objects: &Objects,
    root: &Value,
    storages: &mut dyn Storages,
    file_bytes: usize,
) -> Result<Checkpoint> {
    let mut walk = Walk {
        objects,
        storages,
        budget: file_bytes,
        values: 0,
        found: Checkpoint::default(),
    };
    walk.visit(root, "", 0)?;
    let found = walk.found;
    let has_model = found.tensors.keys().any(|name| name.ends_with("cls_token"));
    let module = found.unread.iter().find(|part| part.is_module);
    match module.filter(|_| !has_model) {
        Some(module) => {
            let at = match module.path.as_str() {
                "" => String::new(),
                path => format!(" at `{path}`"),
            };
            let advice = if module.class.starts_with("__torch__.") {
                "torch.save(torch.jit.load(FILE).state_dict(), \"weights.pth\")"
            } else {
                "torch.save(model.state_dict(), \"weights.pth\")"
            };
            Err(Error::artifact(format!(
                "the file holds {module}{at}, which only its own code can read, not a state dict; \
                 save one where that code is installed: {advice}"
            )))
        }
        None => Ok(found),
    }
}

struct Walk<'a> {
    objects: &'a Objects,
    storages: &'a mut dyn Storages,
    budget: usize,
    values: usize,
    found: Checkpoint,
}

impl Walk<'_> {
    fn visit(&mut self, value: &Value, name: &str, depth: usize) -> Result<()> {
        self.count(1)?;
        if depth > MAX_DEPTH || name.len() > MAX_NAME_BYTES {
            return Ok(());
        }
        if let Some(class) = self.objects.module_class(value) {
            self.pass_over(name, class, true);
            return Ok(());
        }
        let objects = self.objects;
        match objects.get(value) {
            Some(Object::Tensor(tensor)) => {
                if let Some(read) = read(name, tensor, self.storages, &mut self.budget)? {
                    self.found.tensors.insert(name.to_owned(), read);
                }
                if self.found.tensors.len() > MAX_TENSORS {
                    return Err(too_many(MAX_TENSORS, "tensors"));
                }
            }
            Some(Object::Instance {
                class,
                entries,
                items,
                state,
            }) => {
                if self.holds_tensors(state)? {
                    self.pass_over(name, class, false);
                }
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

    /// Counts values that are looked at.
    fn count(&mut self, values: usize) -> Result<()> {
        self.values += values;
        if self.values > MAX_VALUES {
            return Err(too_many(MAX_VALUES, "values"));
        }
        Ok(())
    }

    fn pass_over(&mut self, path: &str, class: &str, is_module: bool) {
        if self.found.unread.len() < MAX_UNREAD {
            self.found.unread.push(Unread {
                path: path.to_owned(),
                class: class.to_owned(),
                is_module,
            });
        }
    }

    /// Returns whether a value leads to a tensor or its storage.
    fn holds_tensors(&mut self, value: &Value) -> Result<bool> {
        let objects = self.objects;
        let mut pending = vec![value];
        let mut seen = HashSet::new();
        while let Some(value) = pending.pop() {
            let Value::Object(id) = value else { continue };
            if !seen.insert(*id) {
                continue;
            }
            match objects.get(value) {
                Some(Object::Tensor(_) | Object::Storage(_)) => return Ok(true),
                Some(Object::List(items) | Object::Tuple(items)) => {
                    self.count(items.len())?;
                    pending.extend(items);
                }
                Some(Object::Instance {
                    entries,
                    items,
                    state,
                    ..
                }) => {
                    self.count(entries.len() + items.len() + 1)?;
                    pending.extend(entries.iter().map(|(_, value)| value));
                    pending.extend(items.iter().chain([state]));
                }
                None => {}
            }
        }
        Ok(false)
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

fn too_many(maximum: usize, what: &str) -> Error {
    Error::artifact(format!(
        "the checkpoint has more than {maximum} {what}; save only the weights"
    ))
}

fn join(name: &str, key: &str) -> String {
    if name.is_empty() {
        key.to_owned()
    } else {
        format!("{name}.{key}")
    }
}
