//! Weights as 8-bit integers, one scale for each output.
//!
//! x86 CPUs without VNNI multiply an activation (unsigned) by a weight (signed) and add two
//! neighboring products in 16 bits with saturation, and 255·127·2 is too large for them. Other CPUs
//! do not saturate, so the same model would give different features on different machines.
//! Therefore the sum of two neighboring weights of one sign is at most 128, since 255·128 fits.
//! Weights of different signs cannot add up that far. This costs less precision than 7 bits for all
//! weights.

/// Weights of a product in the layout of the runtime's integer kernels.
#[derive(Debug)]
pub(super) struct Quantized {
    /// `[inputs, outputs]`, −127..=127.
    pub(super) values: Vec<i8>,
    /// `[outputs]`; a weight is its value times the scale.
    pub(super) scales: Vec<f32>,
}

/// Maximum sum of the magnitudes of two neighboring weights of one sign.
const MAX_PAIR: i32 = 128;
/// Maximum magnitude of a weight.
const MAX_WEIGHT: f32 = 127.0;

/// Quantizes `weight`, `[outputs, inputs]`, symmetrically to the nearest value.
///
/// # Panics
/// If the number of weights does not fit, or the number of inputs is odd.
pub(super) fn quantize(weight: &[f32], outputs: usize, inputs: usize) -> Quantized {
    assert!(
        inputs.is_multiple_of(2) && weight.len() == outputs * inputs,
        "pairs of inputs for each output"
    );
    let mut values = vec![0i8; weight.len()];
    let mut scales = Vec::with_capacity(outputs);
    for (output, row) in weight.chunks_exact(inputs).enumerate() {
        let (pairs, _) = row.as_chunks::<2>();
        let scale = pairs.iter().map(min_scale).fold(0.0, f32::max);
        let scale = if scale > 0.0 { scale } else { 1.0 };
        for (pair, weights) in pairs.iter().enumerate() {
            let rounded = weights.map(|weight| {
                (weight / scale)
                    .round_ties_even()
                    .clamp(-MAX_WEIGHT, MAX_WEIGHT) as i32
            });
            for (i, value) in within_pair(rounded).into_iter().enumerate() {
                values[(2 * pair + i) * outputs + output] = value as i8;
            }
        }
        scales.push(scale);
    }
    Quantized { values, scales }
}

/// Returns the smallest scale at which a pair of weights is within the limits.
fn min_scale(&[a, b]: &[f32; 2]) -> f32 {
    let alone = a.abs().max(b.abs()) / MAX_WEIGHT;
    if a * b > 0.0 {
        alone.max((a.abs() + b.abs()) / MAX_PAIR as f32)
    } else {
        alone
    }
}

/// Subtracts from both values of a pair what rounding added above the limit.
fn within_pair([a, b]: [i32; 2]) -> [i32; 2] {
    let excess = if a * b > 0 {
        (a.abs() + b.abs() - MAX_PAIR).max(0)
    } else {
        0
    };
    [
        a - a.signum() * (excess - excess / 2),
        b - b.signum() * (excess / 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Limits that keep sums from saturating on CPUs without VNNI, and the error below 1.5 steps.
    #[test]
    fn quantized_weights_stay_within_their_limits() {
        let outputs = 7;
        let inputs = 64;
        let mut state = 9u32;
        let mut weight: Vec<f32> = (0..outputs * inputs)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect();
        // Rows harder than noise: equal pairs, one large pair, opposite signs, zeros.
        weight[..inputs].fill(0.25);
        weight[inputs..inputs + 2].copy_from_slice(&[40.0, 40.0]);
        weight[2 * inputs..2 * inputs + 2].copy_from_slice(&[40.0, -40.0]);
        weight[3 * inputs..4 * inputs].fill(0.0);
        let Quantized { values, scales } = quantize(&weight, outputs, inputs);
        for output in 0..outputs {
            let of = |input: usize| i32::from(values[input * outputs + output]);
            for pair in (0..inputs).step_by(2) {
                let a = of(pair);
                let b = of(pair + 1);
                assert!(
                    a.abs() <= 127 && b.abs() <= 127 && (a + b).abs() <= 128,
                    "{a} {b}"
                );
            }
            for input in 0..inputs {
                let back = of(input) as f32 * scales[output];
                assert!(
                    (back - weight[output * inputs + input]).abs() <= 1.5 * scales[output],
                    "{output} {input}"
                );
            }
        }
        assert_eq!(
            [values[0], values[outputs]],
            [64, 64],
            "a pair of equal weights takes half each"
        );
        assert_eq!(
            [values[2], values[outputs + 2]],
            [127, -127],
            "opposite signs cannot saturate"
        );
    }
}
