//! Reading tensors by the hub's names.

use super::{
    names,
    parts::{Parts, join_shapes},
    positions::Coverage,
    tensor::RawTensor,
    translate::Weights,
};
use crate::error::{Error, Result};

impl Weights {
    /// Reads the tensor with the hub's `name`, as f32 of exactly `shape`, row-major.
    ///
    /// A position table gets a row for CLS, and gives away rows for registers, if the file differs
    /// from the hub there; the sums of tokens and positions are the same.
    /// The biases of queries, keys and values are multiplied with their mask if there is one. In a
    /// model with rotations they are 0 if no block has any.
    ///
    /// # Errors
    /// [`crate::error::Kind::Artifact`] if it is missing, has another shape, or a value is not
    /// finite.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.read_in_force(name, shape)?;
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(Error::artifact(format!(
            "the weights are {}; tensor {name} has values that are not finite, as before a \
             training or after one that failed",
            self.found
        )))
    }

    /// Returns whether there is a tensor with the hub's `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn read_in_force(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match (name, self.coverage(), shape) {
            ("pos_embed", Some(coverage), &[.., rows, width]) => {
                let grid = rows.saturating_sub(1).isqrt();
                if coverage.rows(grid) == rows {
                    return self.read_stored(name, shape);
                }
                let stored = self.read_stored(name, &[1, coverage.rows(grid), width])?;
                Ok(coverage.with_cls_only(&stored, width))
            }
            ("register_tokens", Some(coverage @ Coverage::Registers(_)), &[.., width]) => {
                let mut tokens = self.read_stored(name, shape)?;
                let positions = self.read_whole("pos_embed")?;
                for (token, position) in
                    tokens.iter_mut().zip(coverage.registers(&positions, width))
                {
                    *token += position;
                }
                Ok(tokens)
            }
            _ if name.ends_with(".attn.qkv.bias") => self.read_biases(name, shape),
            _ => self.read_stored(name, shape),
        }
    }

    /// Reads the biases of queries, keys and values of a block.
    fn read_biases(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let is_of_qkv = |name: &String| name.contains(".attn.qkv.bias");
        let has_none = !self.tensors.keys().any(is_of_qkv);
        if has_none && self.found.position_rows.is_none() {
            return Ok(vec![0.0; shape.iter().product()]);
        }
        let mut biases = self.read_stored(name, shape)?;
        let mask = name.replace("attn.qkv.bias", names::BIAS_MASK);
        if self.has(&mask) {
            let mask = self.read_stored(&mask, shape)?;
            for (bias, mask) in biases.iter_mut().zip(mask) {
                *bias *= mask;
            }
        }
        Ok(biases)
    }

    /// Reads a tensor as the file has it.
    fn read_stored(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let parts = self.parts(name)?;
        // Checked before any value is read: another shape than the model's could have any size.
        if !join_shapes(&parts).is_some_and(|joined| same_shape(&joined, shape)) {
            let found: Vec<String> = parts
                .iter()
                .map(|(_, part)| format!("{:?}", part.shape))
                .collect();
            let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
            return Err(Error::artifact(format!(
                "the weights are {}; tensor {} has shape {}, but this model needs {shape:?}",
                self.found,
                names.join(" + "),
                found.join(" + ")
            )));
        }
        Ok(parts
            .into_iter()
            .flat_map(|(_, part)| part.to_f32())
            .collect())
    }

    fn read_whole(&self, name: &str) -> Result<Vec<f32>> {
        let parts = self.parts(name)?;
        Ok(parts
            .into_iter()
            .flat_map(|(_, part)| part.to_f32())
            .collect())
    }

    /// Returns the parts of a tensor with their names in the file.
    fn parts(&self, name: &str) -> Result<Vec<(&str, &RawTensor)>> {
        let missing = |name: &str| {
            Error::artifact(format!(
                "the weights are {}, and have no tensor {name}; save all weights of the model",
                self.found
            ))
        };
        let stored = self.tensors.get(name);
        let stored = stored.ok_or_else(|| missing(&self.name_in_file(name)))?;
        stored
            .iter()
            .enumerate()
            .map(|(index, part)| match part {
                Some((name, tensor)) => Ok((name.as_str(), tensor)),
                None => Err(missing(&describe_missing(name, stored, index))),
            })
            .collect()
    }

    /// Returns the name that an absent tensor would have in the file: the one of the same tensor in
    /// another block, else that of Meta's hub or, in a file of transformers, of its DINOv2.
    fn name_in_file(&self, name: &str) -> String {
        self.name_as_in_another_block(name).unwrap_or_else(|| {
            let names = names::hugging_face(name).filter(|_| self.has_hugging_face_names);
            let tail = names.map_or_else(|| name.to_owned(), |names| names.join(" + "));
            format!("{}{tail}", self.prefix)
        })
    }

    fn name_as_in_another_block(&self, name: &str) -> Option<String> {
        let (block, leaf) = block_and_leaf(name)?;
        self.tensors.iter().find_map(|(hub, parts)| {
            let (other, _) = block_and_leaf(hub).filter(|(_, other_leaf)| *other_leaf == leaf)?;
            let names = parts.iter().map(|part| {
                let (name, _) = part.as_ref()?;
                let tail = name.strip_prefix(&self.prefix)?;
                let number = format!(".{other}.");
                tail.contains(&number).then(|| {
                    let renamed = tail.replacen(&number, &format!(".{block}."), 1);
                    format!("{}{renamed}", self.prefix)
                })
            });
            Some(names.collect::<Option<Vec<String>>>()?.join(" + "))
        })
    }
}

/// Splits the name of a tensor of a block into the block's number and the name within.
fn block_and_leaf(hub: &str) -> Option<(&str, &str)> {
    hub.strip_prefix("blocks.")?.split_once('.')
}

fn describe_missing(name: &str, parts: &Parts, index: usize) -> String {
    let present: Vec<&str> = parts
        .iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    format!(
        "that completes {name}: part {} of {}, next to {}",
        index + 1,
        parts.len(),
        present.join(" and ")
    )
}

/// Returns whether two shapes are equal apart from leading ones (`[1, 1, D]` and `[D]`).
fn same_shape(a: &[usize], b: &[usize]) -> bool {
    fn trim(shape: &[usize]) -> impl Iterator<Item = &usize> {
        shape.iter().skip_while(|&&side| side == 1)
    }
    trim(a).eq(trim(b))
}
