//! Weights as 8-bit integers, one scale for each output.
//!
//! x86 CPUs without VNNI multiply an activation (unsigned) by a weight (signed) and add two
//! neighboring products in 16 bits, which saturate: 255·127·2 is too much. Elsewhere they do not,
//! so that the same model would give other features on other machines. Here two neighboring
//! weights of one sign are kept at a sum of at most 128, since 255·128 fits; weights of different
//! signs cannot add up that far. It costs less precision than 7 bits for all.

/// Weights of a product, as the runtime's integer kernels take them.
#[derive(Debug)]
pub struct Quantized {
    /// `[inputs, outputs]`, −127..=127.
    pub values: Vec<i8>,
    /// `[outputs]`: a weight is its value times this.
    pub scales: Vec<f32>,
}

/// Largest sum of the magnitudes of two neighboring weights of one sign.
const PAIR: i32 = 128;
const LARGEST: f32 = 127.0;

/// Quantizes `weight`, `[outputs, inputs]`, symmetrically to the nearest value.
///
/// # Panics
/// If there are more or fewer weights than that, or an odd number of inputs.
pub fn quantize(weight: &[f32], outputs: usize, inputs: usize) -> Quantized {
    assert!(
        inputs.is_multiple_of(2) && weight.len() == outputs * inputs,
        "pairs of inputs for each output"
    );
    let mut values = vec![0i8; weight.len()];
    let mut scales = Vec::with_capacity(outputs);
    for (output, row) in weight.chunks_exact(inputs).enumerate() {
        let (pairs, _) = row.as_chunks::<2>();
        let least = |&[a, b]: &[f32; 2]| {
            let alone = a.abs().max(b.abs()) / LARGEST;
            if a * b > 0.0 {
                alone.max((a.abs() + b.abs()) / PAIR as f32)
            } else {
                alone
            }
        };
        let scale = pairs.iter().map(least).fold(0.0, f32::max);
        let scale = if scale > 0.0 { scale } else { 1.0 };
        for (pair, weights) in pairs.iter().enumerate() {
            let rounded = weights
                .map(|weight| (weight / scale).round_ties_even().clamp(-LARGEST, LARGEST) as i32);
            for (i, value) in within_pair(rounded).into_iter().enumerate() {
                values[(2 * pair + i) * outputs + output] = value as i8;
            }
        }
        scales.push(scale);
    }
    Quantized { values, scales }
}

/// Takes what rounding put above the limit off both values of a pair.
fn within_pair([a, b]: [i32; 2]) -> [i32; 2] {
    let excess = if a * b > 0 {
        (a.abs() + b.abs() - PAIR).max(0)
    } else {
        0
    };
    [
        a - a.signum() * (excess - excess / 2),
        b - b.signum() * (excess / 2),
    ]
}
