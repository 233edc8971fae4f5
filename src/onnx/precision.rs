//! Precision and dialect of a converted model.

use std::fmt;

use crate::names::option_enum;

option_enum! {
    /// Precision in which a model's weights are stored and its products computed.
    #[derive(Default)]
    pub enum Precision {
        /// 32-bit floats: the reference.
        #[default]
        Fp32,
        /// 8-bit integers in the large products, for CPUs: less memory and time, features that are
        /// nearly the same.
        Int8,
        /// 16-bit floats, for GPUs.
        Fp16,
        /// 32-bit weights, products in bfloat16, for CPUs with units for it.
        Bf16,
    }
}

option_enum! {
    /// Operators of which a graph is made. Both dialects compute the same formula.
    pub enum Dialect {
        /// With ONNX Runtime's fused operators, for its own providers.
        Fused,
        /// Standard operators only, for OpenVINO, which fuses them itself.
        Plain,
    }
}

/// What a conversion makes of the weights. Displayed as in file names: `fp32`, `bf16`,
/// `fp32-plain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversion {
    /// Precision of the weights and products.
    pub precision: Precision,
    /// Operators of the graph.
    pub dialect: Dialect,
}

/// The usual dialect: only OpenVINO computes in bfloat16.
impl From<Precision> for Conversion {
    fn from(precision: Precision) -> Self {
        let dialect = match precision {
            Precision::Bf16 => Dialect::Plain,
            Precision::Fp32 | Precision::Int8 | Precision::Fp16 => Dialect::Fused,
        };
        Self { precision, dialect }
    }
}

impl Conversion {
    /// Returns the flags of `dinoserve` that ask for this conversion.
    pub fn flags(self) -> String {
        let Self { precision, dialect } = self;
        let device = match dialect {
            Dialect::Plain if precision != Precision::Bf16 => " --device openvino",
            Dialect::Plain | Dialect::Fused => "",
        };
        format!("--precision {precision}{device}")
    }
}

impl fmt::Display for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::from(self.precision).dialect;
        self.precision.fmt(f)?;
        if self.dialect != usual {
            write!(f, "-{}", self.dialect)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_is_named_after_its_precision_and_unusual_dialect() {
        let plain = |precision| Conversion {
            precision,
            dialect: Dialect::Plain,
        };
        assert_eq!(Conversion::from(Precision::Fp32).to_string(), "fp32");
        assert_eq!(Conversion::from(Precision::Bf16).to_string(), "bf16");
        assert_eq!(plain(Precision::Bf16).to_string(), "bf16");
        assert_eq!(plain(Precision::Fp32).to_string(), "fp32-plain");
        assert_eq!(
            plain(Precision::Fp32).flags(),
            "--precision fp32 --device openvino"
        );
        assert_eq!(
            Conversion::from(Precision::Bf16).flags(),
            "--precision bf16"
        );
    }
}
