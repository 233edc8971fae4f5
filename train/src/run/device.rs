//! The device that a run computes on.

use anyhow::bail;
use burn::tensor::Device;

/// Opens the device with the given name: `cpu`, or `cuda` if the program was built with it.
pub fn open_device(name: &str) -> anyhow::Result<Device> {
    match name {
        "cpu" => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        "cuda" => cuda(),
        #[cfg(not(feature = "cuda"))]
        "cuda" => bail!(
            "device `cuda` is not supported: this program was built without CUDA; build it with \
             `--features cuda`"
        ),
        other => bail!("device {other:?} is unknown; it must be `cpu` or `cuda`"),
    }
}

/// Returns the number of shards of a batch: `configured`, or the default of the device if that is
/// 0. The default is two for each core, because one computes while the other waits for a product,
/// and smaller shards fit the cache better. A GPU prefers one large batch.
pub(crate) fn shards_on(device: &Device, configured: usize) -> usize {
    match configured {
        0 if *device == Device::flex() => {
            2 * std::thread::available_parallelism().map_or(1, usize::from)
        }
        0 => 1,
        shards => shards,
    }
}

/// Opens the first GPU and tests it. Opening panics where the driver's libraries are missing.
#[cfg(feature = "cuda")]
fn cuda() -> anyhow::Result<Device> {
    use burn::tensor::Tensor;

    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let opened = std::panic::catch_unwind(|| {
        let device = Device::cuda(0);
        let two: f32 = (Tensor::<1>::ones([1], &device) + 1.0).into_scalar();
        (two == 2.0).then_some(device)
    });
    std::panic::set_hook(hook);
    match opened {
        Ok(Some(device)) => Ok(device),
        _ => bail!(
            "no CUDA device was found; check the NVIDIA GPU, its driver and the CUDA libraries, or \
             use `--device cpu`"
        ),
    }
}
