//! What this machine has.

use std::path::Path;

/// Returns the number of cores that this process may use.
pub fn available_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Returns whether the processor multiplies bfloat16 itself. Where it does not, OpenVINO would
/// emulate the products.
pub fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // Processors with AMX have these instructions, too.
        std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Returns whether bf16 is faster than f32 here. Measured: it is with AMX and on AMD's AVX512-BF16,
/// and takes 1.4 to 2 times as long on Intel's without AMX.
pub fn prefers_bf16() -> bool {
    has_bf16()
        && std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| multiplies_bf16_faster(&text))
}

/// Judges by the text of `/proc/cpuinfo`.
fn multiplies_bf16_faster(cpuinfo: &str) -> bool {
    let value = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
    };
    let has_amx = value("flags").is_some_and(|flags| flags.split(' ').any(|f| f == "amx_bf16"));
    has_amx || value("vendor_id") == Some("AuthenticAMD")
}

/// Returns whether the machine shows a driver for NVIDIA GPUs, also inside of WSL.
pub(super) fn has_nvidia_gpu() -> bool {
    ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"]
        .iter()
        .any(|device| Path::new(device).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_preferred_with_amx_and_on_amd() {
        let cpu = |vendor: &str, flags: &str| {
            let text = format!("processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n");
            multiplies_bf16_faster(&text)
        };
        assert!(cpu("GenuineIntel", "avx512_bf16 amx_bf16 amx_tile"));
        assert!(!cpu("GenuineIntel", "avx512_bf16 avx512_vnni"));
        assert!(cpu("AuthenticAMD", "avx512_bf16 avx512_vnni"));
        assert!(!multiplies_bf16_faster(""));
    }
}
