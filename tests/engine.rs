//! The engine: batches, fairness, failing jobs and canceled jobs.

use std::{sync::Arc, time::Duration};

use dinoserve::{
    engine::{
        Device, Engine, EngineConfig, EnginePlan, EngineState, EngineThread, Features, Input,
        OpenVinoDevice, Provider, RequestedOutputs, SessionOptions,
    },
    error::{Error, Kind},
    onnx::Precision,
    telemetry,
    vision::{Grid, Size},
};

use crate::support::{PATCH, difference, runtime, server::on_cpu, session, tiny, wave};

const GRID: Grid = Grid {
    height: 10,
    width: 12,
};
const OTHER: Grid = Grid {
    height: 9,
    width: 9,
};

fn input(grid: Grid, shift: u8) -> Input {
    let Size { width, height } = grid.pixels(PATCH);
    let mut pixels = wave(height, width);
    pixels
        .iter_mut()
        .for_each(|byte| *byte = byte.wrapping_add(shift));
    Input { pixels, grid }
}

/// Returns an input whose pixels do not fit its grid, so that its run fails.
fn poisoned() -> Input {
    Input {
        pixels: wave(PATCH.pixels(), PATCH.pixels()),
        grid: GRID,
    }
}

async fn start(config: &EngineConfig) -> (Engine, EngineThread) {
    let started = Engine::start(&runtime(), tiny("tiny-reg", "model.safetensors"), config)
        .expect("an engine");
    started.0.ready().await.expect("the engine gets ready");
    started
}

type Answer = tokio::task::JoinHandle<Result<(Input, Features), Error>>;

fn ask(engine: &Engine, input: Input) -> Answer {
    let engine = engine.clone();
    tokio::spawn(async move { engine.infer(input, RequestedOutputs::default()).await })
}

/// Gives the worker a large image, so that the next jobs queue up.
async fn keep_busy(engine: &Engine) -> Answer {
    let large = ask(
        engine,
        input(
            Grid {
                height: 80,
                width: 80,
            },
            0,
        ),
    );
    // The calling task runs and queues the job; then the worker takes it.
    tokio::task::yield_now().await;
    while engine.queued() > 0 {
        tokio::task::yield_now().await;
    }
    large
}

fn batches() -> (u64, f64) {
    let sizes = &telemetry::metrics().batch_size;
    let sizes = sizes.with_label_values(&["tiny-reg"]);
    (sizes.get_sample_count(), sizes.get_sample_sum())
}

#[tokio::test]
async fn a_batch_forms_while_the_worker_is_busy_and_holds_one_grid() {
    let config = EngineConfig {
        workers: Some(1),
        max_batch: Some(4),
        ..on_cpu()
    };
    let (engine, _thread) = start(&config).await;
    let mut alone = session(&tiny("tiny-reg", "model.safetensors"));

    // Six of one grid and two of another between them: batches of 4, 2 and 2.
    let grids = [GRID, OTHER, GRID, GRID, GRID, OTHER, GRID, GRID];
    let inputs: Vec<Input> = grids
        .iter()
        .zip(0..)
        .map(|(&grid, index)| input(grid, index * 9))
        .collect();

    let large = keep_busy(&engine).await;
    let before = batches();
    let mut answers = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        answers.push(ask(&engine, input.clone()));
        while engine.queued() <= index && !large.is_finished() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(
        engine.queued(),
        grids.len(),
        "the worker is still busy with the large image"
    );
    large.await.unwrap().unwrap();
    for (index, answer) in answers.into_iter().enumerate() {
        let (image, features) = answer.await.unwrap().unwrap();
        let expected = alone
            .run(&[(&inputs[index], RequestedOutputs::default())])
            .unwrap()
            .remove(0);
        assert!(
            difference(&features.cls, &expected.cls).0 < 1e-4,
            "image {index} got its own features"
        );
        assert_eq!(image.grid, grids[index]);
        assert!(features.queue_time > Duration::ZERO);
    }
    let after = batches();
    // The large image's batch may be counted before or after.
    let count = after.0 - before.0;
    let images = after.1 - before.1;
    assert!(
        (3..=4).contains(&count) && (8.0..=9.0).contains(&images),
        "{count} batches of {images} images"
    );
}

#[tokio::test]
async fn a_poisoned_job_fails_alone() {
    let (engine, _thread) = start(&EngineConfig {
        workers: Some(1),
        max_batch: Some(8),
        ..on_cpu()
    })
    .await;
    let large = keep_busy(&engine).await;
    let answers: Vec<Answer> = [input(GRID, 0), poisoned(), input(GRID, 20)]
        .map(|input| ask(&engine, input))
        .into_iter()
        .collect();
    large.await.unwrap().unwrap();
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await.unwrap().map_err(|error| error.kind()));
    }
    assert!(
        matches!(outcomes[..], [Ok(_), Err(Kind::Internal), Ok(_)]),
        "{outcomes:?}"
    );
    ask(&engine, input(GRID, 0))
        .await
        .unwrap()
        .expect("the worker lives on");
}

#[tokio::test]
async fn a_job_whose_caller_has_left_is_not_run() {
    let (engine, thread) = start(&EngineConfig {
        workers: Some(1),
        max_batch: Some(1),
        ..on_cpu()
    })
    .await;
    let large = keep_busy(&engine).await;
    let before = batches().0;
    let wanted = ask(&engine, input(GRID, 1));
    let unwanted: Vec<Answer> = (2..8)
        .map(|shift| ask(&engine, input(GRID, shift)))
        .collect();
    while engine.queued() < 7 && !large.is_finished() {
        tokio::task::yield_now().await;
    }
    unwanted.iter().for_each(Answer::abort);
    for answer in unwanted {
        assert!(answer.await.unwrap_err().is_cancelled());
    }
    large.await.unwrap().unwrap();
    wanted.await.unwrap().unwrap();
    drop(engine);
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .unwrap();
    let ran = batches().0 - before;
    assert!(
        (1..=2).contains(&ran),
        "{ran} batches ran: the one that was wanted, and perhaps the large one"
    );
}

#[tokio::test]
async fn the_queue_is_bounded_and_nothing_is_lost() {
    let config = EngineConfig {
        workers: Some(2),
        intra_threads: Some(1),
        queue_depth: 3,
        ..on_cpu()
    };
    let (engine, thread) = start(&config).await;
    let answers: Vec<Answer> = (0..60)
        .map(|i| ask(&engine, input(if i % 3 == 0 { OTHER } else { GRID }, i)))
        .collect();
    for answer in answers {
        assert!(engine.queued() <= 3);
        answer.await.unwrap().expect("an answer");
    }
    drop(engine);
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .expect("all workers end");
}

#[tokio::test]
async fn queued_jobs_are_answered_when_the_engine_is_dropped() {
    let (engine, thread) = start(&EngineConfig {
        workers: Some(2),
        ..on_cpu()
    })
    .await;
    let answers: Vec<Answer> = (0..20)
        .map(|shift| ask(&engine, input(GRID, shift)))
        .collect();
    drop(engine);
    for answer in answers {
        answer.await.unwrap().expect("an answer");
    }
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .expect("all workers end");
}

#[tokio::test]
async fn a_gpu_that_is_not_there_is_an_error_or_a_fallback() {
    let model = || tiny("tiny-reg", "model.safetensors");
    if runtime()
        .providers(&Device::Cuda(vec![0]), Precision::Fp32)
        .is_ok()
    {
        crate::support::skip("the absence of a GPU: this machine has one");
        return;
    }
    let strict = EngineConfig {
        device: Device::Cuda(vec![0, 1]),
        ..EngineConfig::default()
    };
    let (engine, _) = Engine::start(&runtime(), model(), &strict).unwrap();
    let error = engine.ready().await.unwrap_err();
    assert!(
        error.detail().contains("CUDA device 0 cannot be used"),
        "{error}"
    );
    assert!(matches!(engine.state(), EngineState::Failed(_)));
    let error = engine
        .infer(input(GRID, 0), RequestedOutputs::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);

    let (engine, _) = Engine::start(&runtime(), model(), &EngineConfig::default()).unwrap();
    let plan: Arc<EnginePlan> = engine.ready().await.expect("auto falls back");
    assert_eq!(
        (plan.providers.as_slice(), plan.provider().as_str()),
        ([Provider::Cpu].as_slice(), "cpu")
    );
}

#[test]
fn defaults_follow_the_cores_and_the_device() {
    let plan = |config: EngineConfig, providers: &[Provider], cores| {
        let EnginePlan {
            workers,
            solo_threads,
            max_batch,
            session,
            ..
        } = config.plan(Precision::Fp32, providers, cores);
        assert_eq!(
            SessionOptions {
                intra_threads: session.intra_threads,
                ..SessionOptions::default()
            },
            session
        );
        (workers, session.intra_threads, solo_threads, max_batch)
    };
    let set = |workers, intra_threads| EngineConfig {
        workers,
        intra_threads,
        ..EngineConfig::default()
    };
    let cpu = [Provider::Cpu];
    assert_eq!(plan(set(None, None), &cpu, 1), (1, 1, None, 1));
    assert_eq!(plan(set(None, None), &cpu, 2), (2, 1, Some(2), 1));
    assert_eq!(plan(set(None, None), &cpu, 64), (16, 4, Some(16), 1));
    assert_eq!(plan(set(Some(1), None), &cpu, 8), (1, 8, None, 1));
    assert_eq!(plan(set(Some(16), None), &cpu, 8), (16, 1, Some(8), 1));
    assert_eq!(plan(set(None, Some(3)), &cpu, 8), (2, 3, Some(8), 1));
    assert_eq!(plan(set(None, Some(16)), &cpu, 8), (1, 16, None, 1));
    assert_eq!(plan(set(Some(2), Some(3)), &cpu, 8), (2, 3, Some(8), 1));
    assert_eq!(
        plan(
            EngineConfig {
                solo_threads: Some(0),
                ..set(None, None)
            },
            &cpu,
            2
        ),
        (2, 1, None, 1)
    );
    let gpus = [Provider::Cuda(0), Provider::Cuda(3)];
    assert_eq!(plan(set(None, None), &gpus, 8), (1, 1, None, 32));
    assert_eq!(
        plan(
            EngineConfig {
                max_batch: Some(5),
                ..set(Some(2), None)
            },
            &gpus,
            8
        ),
        (2, 1, None, 5)
    );
    let openvino = [Provider::OpenVino(OpenVinoDevice::Cpu)];
    assert_eq!(plan(set(None, None), &openvino, 2), (2, 1, Some(2), 1));
    assert_eq!(plan(set(None, None), &openvino, 64), (4, 16, None, 1));
    assert_eq!(plan(set(Some(1), None), &openvino, 2), (1, 2, None, 1));
    let on_gpus = EngineConfig::default().plan(Precision::Fp32, &gpus, 8);
    assert_eq!(on_gpus.provider(), "cuda:0,3");
    assert_eq!(
        on_gpus.to_string(),
        "cuda:0,3: 1 worker each of 1 thread, batches of up to 32 images"
    );
    assert_eq!(
        EngineConfig::default()
            .plan(Precision::Fp32, &cpu, 2)
            .to_string(),
        "cpu: 2 workers of 1 thread, one of 2 threads for lone images, batches of up to 1 image"
    );
}

#[tokio::test]
async fn one_image_and_many_are_all_answered() {
    let config = EngineConfig {
        workers: Some(2),
        intra_threads: Some(1),
        solo_threads: Some(2),
        ..on_cpu()
    };
    let (engine, thread) = start(&config).await;
    for crowd in [1, 2, 1, 7, 1, 1, 3] {
        let answers: Vec<Answer> = (0..crowd)
            .map(|shift| ask(&engine, input(GRID, shift)))
            .collect();
        for answer in answers {
            answer.await.unwrap().expect("an answer");
        }
    }
    drop(engine);
    tokio::task::spawn_blocking(move || thread.join())
        .await
        .expect("all workers end");
}

#[test]
fn an_int8_model_runs_image_by_image_on_the_cpu() {
    let config = EngineConfig {
        max_batch: Some(8),
        ..EngineConfig::default()
    };
    assert_eq!(
        config
            .plan_here(Precision::Int8, &runtime())
            .unwrap()
            .max_batch,
        1
    );
    let config = EngineConfig {
        device: Device::Cuda(vec![0]),
        ..EngineConfig::default()
    };
    let error = config.plan_here(Precision::Int8, &runtime()).unwrap_err();
    assert!(error.detail().contains("--precision fp16"), "{error}");
}

#[test]
fn a_device_is_parsed_as_it_is_printed() {
    for text in [
        "auto",
        "cpu",
        "openvino",
        "openvino:NPU",
        "cuda:0",
        "cuda:1,0,7",
    ] {
        assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
    }
    assert_eq!("cuda".parse(), Ok(Device::Cuda(vec![0])));
    let gpu = Device::OpenVino(OpenVinoDevice::Gpu);
    assert_eq!("openvino:GPU".parse(), Ok(gpu));
    for wrong in [
        "",
        "auto:1",
        "openvino:",
        "openvino:cpu,GPU",
        "gpu",
        "cuda:",
        "cuda:x",
        "cuda:0,",
        "cuda:-1",
        "cuda:1,1",
        "cuda0",
    ] {
        assert!(wrong.parse::<Device>().is_err(), "{wrong:?}");
    }
}

/// Serializes tests that read the counts of panics and sessions, which a process has once.
static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Returns an input whose grid fits no position table, so that the worker panics.
fn panicking() -> Input {
    Input {
        pixels: wave(PATCH.pixels(), PATCH.pixels()),
        grid: Grid {
            height: usize::MAX,
            width: 1,
        },
    }
}

#[tokio::test]
async fn a_worker_that_panics_is_isolated_counted_and_replaced() {
    let _alone = COUNTING.lock().await;
    let (engine, _thread) = start(&EngineConfig {
        workers: Some(2),
        ..on_cpu()
    })
    .await;
    let metrics = telemetry::metrics();
    let panics = || metrics.panics.with_label_values(&["worker"]).get();
    let panics_before = panics();
    let restarts = || {
        metrics
            .worker_restarts
            .with_label_values(&["tiny-reg"])
            .get()
    };
    let restarts_before = restarts();
    let expected = ask(&engine, input(GRID, 7)).await.unwrap().unwrap().1.cls;
    // More bad inputs than workers, mixed with good ones.
    let answers: Vec<_> = (0..12)
        .map(|i| {
            ask(
                &engine,
                if i % 2 == 0 {
                    panicking()
                } else {
                    input(GRID, 7)
                },
            )
        })
        .collect();
    for (index, answer) in answers.into_iter().enumerate() {
        match answer.await.unwrap() {
            Ok((_, features)) => {
                assert!(index % 2 == 1 && difference(&features.cls, &expected).0 < 1e-5);
            }
            Err(error) => assert!(
                index % 2 == 0 && error.kind() == Kind::Internal,
                "{index}: {error}"
            ),
        }
    }
    assert_eq!(panics() - panics_before, 6);
    // A session is replaced after its response is sent.
    let began = std::time::Instant::now();
    while restarts() - restarts_before < 6 {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        matches!(engine.state(), EngineState::Ready(_)),
        "it was ready all the time"
    );
    ask(&engine, input(GRID, 7))
        .await
        .unwrap()
        .expect("a session that took another's place");
}

#[tokio::test]
async fn an_engine_without_its_model_file_fails_and_recovers() {
    let _alone = COUNTING.lock().await;
    let model = tiny("tiny-reg", "model.safetensors");
    let path = model.paths.model.clone();
    let aside = path.with_extension("aside");
    let (engine, _thread) = Engine::start(
        &runtime(),
        model,
        &EngineConfig {
            workers: Some(1),
            ..on_cpu()
        },
    )
    .unwrap();
    engine.ready().await.unwrap();
    // The only session is lost, and no new one can be created.
    std::fs::rename(&path, &aside).unwrap();
    ask(&engine, panicking()).await.unwrap().unwrap_err();
    let state_becomes = async |wanted: fn(&EngineState) -> bool| {
        let wait = async {
            while !wanted(&engine.state()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .expect("it becomes so");
    };
    state_becomes(
        |state| matches!(state, EngineState::Failed(reason) if reason.contains("cannot be loaded")),
    )
    .await;
    let error = ask(&engine, input(GRID, 7)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        error.to_string().contains("the model cannot run"),
        "{error}"
    );
    // The engine retries until it succeeds.
    std::fs::rename(&aside, &path).unwrap();
    state_becomes(|state| matches!(state, EngineState::Ready(_))).await;
    ask(&engine, input(GRID, 7))
        .await
        .unwrap()
        .expect("an answer");
}

#[tokio::test]
async fn a_batch_that_panics_replaces_the_session() {
    let _alone = COUNTING.lock().await;
    let config = EngineConfig {
        workers: Some(1),
        max_batch: Some(4),
        ..on_cpu()
    };
    let (engine, _thread) = start(&config).await;
    let restarts = || {
        let counter = &telemetry::metrics().worker_restarts;
        counter.with_label_values(&["tiny-reg"]).get()
    };
    let before = restarts();
    let large = keep_busy(&engine).await;
    // Two inputs of one grid form a batch, which panics; each of them alone panics, too.
    let answers: Vec<Answer> = (0..2).map(|_| ask(&engine, panicking())).collect();
    while engine.queued() < 2 && !large.is_finished() {
        tokio::task::yield_now().await;
    }
    large.await.unwrap().unwrap();
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap_err().kind(), Kind::Internal);
    }
    ask(&engine, input(GRID, 7))
        .await
        .unwrap()
        .expect("the worker lives on");
    assert!(restarts() > before, "the session was replaced");
}
