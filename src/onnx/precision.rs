//! Precision of a converted model.

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
    }
}
