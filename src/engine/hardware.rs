//! What this machine has.

use std::path::Path;

use crate::names::plural;

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
    let flags = field(cpuinfo, "flags").unwrap_or_default();
    let has_amx = flags.split(' ').any(|flag| flag == "amx_bf16");
    has_amx || field(cpuinfo, "vendor_id") == Some("AuthenticAMD")
}

/// Returns the resident memory of this process, in bytes; `None` where the system does not tell.
pub(super) fn resident_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let process = procfs::process::Process::myself().ok()?;
        Some(process.statm().ok()?.resident * procfs::page_size())
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

/// Describes the processor as far as speed depends on it: its name, the units that matter, and the
/// number of cores.
pub(super) fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    describe(&cpuinfo, available_cores())
}

fn describe(cpuinfo: &str, cores: usize) -> String {
    const UNITS: [&str; 6] = [
        "avx2",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "amx_bf16",
        "amx_int8",
    ];
    let name = field(cpuinfo, "model name").unwrap_or(std::env::consts::ARCH);
    let flags = field(cpuinfo, "flags").unwrap_or_default();
    let units: Vec<&str> = flags
        .split(' ')
        .filter(|flag| UNITS.contains(flag))
        .collect();
    let cores = plural(cores, "core");
    format!("{cores} of {name} ({})", units.join(", "))
}

/// Returns the first value of a field of `/proc/cpuinfo`.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// Returns whether the machine shows a driver for NVIDIA GPUs, also inside of WSL.
pub fn has_nvidia_gpu() -> bool {
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

    #[test]
    fn a_processor_is_described_by_name_units_and_cores() {
        let cpuinfo = "model name\t: Some CPU\nflags\t\t: fpu avx2 sse amx_bf16\n";
        let text = describe(cpuinfo, 2);
        assert_eq!(text, "2 cores of Some CPU (avx2, amx_bf16)");
    }
}
