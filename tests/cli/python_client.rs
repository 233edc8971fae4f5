//! The Python client: its types, its operations, and the notebook that uses it.

use std::path::{Path, PathBuf};

use dinoserve::http::HttpConfig;

use crate::support::{
    focus,
    python::Python,
    scratch,
    server::{Server, new_gallery},
};

fn in_repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    path.to_str().unwrap().to_owned()
}

async fn server() -> Server {
    Server::start_on(new_gallery().await, focus().clone(), HttpConfig::default()).await
}

#[tokio::test]
async fn its_types_are_those_of_the_api_and_consistent() {
    let Some(python) = Python::find("python_client::types") else {
        return;
    };
    let script = in_repository("openapi/python_types.py");
    python.run(&[&script, "--check"]).await;
    let cache = scratch("mypy");
    let arguments = [
        "--strict",
        "--cache-dir",
        cache.to_str().unwrap(),
        &in_repository("python/dinoserve"),
    ];
    let printed = python.run_program("mypy", &arguments).await;
    assert!(printed.starts_with("Success: "), "{printed}");
    // A wrong option is a type error.
    let file = cache.join("wrong.py");
    std::fs::write(
        &file,
        "from dinoserve import Client\nClient().pca('a.png', sise=224)\n",
    )
    .unwrap();
    let check = format!(
        "import os, subprocess, sys; os.environ['MYPYPATH'] = {:?}; \
         sys.exit(subprocess.call([sys.executable, '-m', 'mypy', '--strict', {:?}]) != 1)",
        in_repository("python"),
        file.to_str().unwrap(),
    );
    let python = python.in_folder(&cache);
    let printed = python.run(&["-c", &check]).await;
    assert!(
        printed.contains("Unexpected keyword argument \"sise\""),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_every_operation() {
    let Some(python) = Python::find("python_client::operations") else {
        return;
    };
    let server = server().await;
    let script = in_repository("tests/clients/dinoserve_client.py");
    let photographs = in_repository("tests/golden/dinov2-small-focus");
    let document = in_repository("openapi/openapi.json");
    let arguments = [&script, &server.url(""), &photographs, &document];
    let printed = python.run(&arguments.map(String::as_str)).await;
    assert!(printed.ends_with(" different requests\n"), "{printed}");
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_notebook_runs() {
    let Some(python) = Python::find("python_client::the_notebook_runs") else {
        return;
    };
    let server = server().await;
    let folder: PathBuf = scratch("notebook");
    // A kernel finds the client where the notebook would find an installed one.
    std::os::unix::fs::symlink(in_repository("python/dinoserve"), folder.join("dinoserve"))
        .unwrap();
    let golden = in_repository("tests/golden");
    let run = format!(
        "import os, runpy, sys; golden = {golden:?}; os.environ.update( \
         DINOSERVE_PHOTOS=golden + '/dinov2-small-focus', \
         DINOSERVE_CIFAR=golden + '/cifar10-sample'); sys.argv = sys.argv[1:]; \
         runpy.run_path(sys.argv[0], run_name='__main__')",
    );
    let script = in_repository("tests/clients/run_notebook.py");
    let notebook = in_repository("examples/lesson.ipynb");
    let python = python.with_server(&server.url(""));
    let arguments = ["-c", &run, &script, &notebook, folder.to_str().unwrap()];
    let printed = python.run(&arguments).await;
    for line in [
        "500 images stored, 200 to test",
        "20-NN: 36.5% of 200 images are right",
        "linear probe: 6",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    let pictures = printed.matches("image/png").count();
    assert!(pictures >= 3, "{pictures} pictures: {printed}");
    server.stopped().await;
}
