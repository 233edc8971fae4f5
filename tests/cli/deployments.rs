//! What runs the server elsewhere: the chart for Helm, the manifests for Kubernetes, the service of
//! systemd, the workflow of releases.

use std::path::Path;

use tokio::process::Command;

use crate::support::{process::PROGRAM, python::Python, scratch, skip};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn in_repository(path: &str) -> String {
    Path::new(ROOT).join(path).to_str().unwrap().to_owned()
}

/// Runs Helm's `template` on the chart with `--set` of these values.
async fn rendered(python: &Python, values: &str) -> String {
    let chart = in_repository("deploy/helm/dinoserve");
    let arguments = ["template", "features", &chart, "--set", values];
    python.run_program("helm", &arguments).await
}

/// Compares every document with the schemas of Kubernetes, of the oldest version that is supported
/// and of the newest.
async fn validate(python: &Python, manifests: &str) {
    let file = scratch("manifests").join("all.yaml");
    std::fs::write(&file, manifests).unwrap();
    let file = file.to_str().unwrap();
    for version in ["1.27", "1.37"] {
        let arguments = ["--strict", "--no-warn", "-k", version, file];
        python.run_program("kubernetes-validate", &arguments).await;
    }
}

#[tokio::test]
async fn the_chart_is_rendered_with_every_option() {
    let Some(python) = Python::find("deployments::the_chart") else {
        return;
    };
    if !python.has("helm") {
        return skip("deployments::the_chart: there is no Helm for this machine");
    }
    let chart = in_repository("deploy/helm/dinoserve");
    let printed = python
        .run_program("helm", &["lint", "--strict", &chart])
        .await;
    assert!(printed.contains("0 chart(s) failed"), "{printed}");
    let plain = rendered(&python, "replicas=3").await;
    assert!(
        plain.contains("replicas: 3") && plain.contains("kind: Service"),
        "{plain}"
    );
    for absent in [
        "DINOSERVE_GALLERY",
        "DINOSERVE_API_KEYS",
        "kind: Ingress",
        "Autoscaler",
    ] {
        assert!(!plain.contains(absent), "{absent}: {plain}");
    }
    let all = rendered(
        &python,
        "settings.CORS_ORIGIN=*,metrics.existingSecret=scrape,\
         ingress.enabled=true,ingress.tlsSecret=tls,\
         autoscaling.enabled=true,metrics.serviceMonitor=true,gallery.existingSecret=db,\
         apiKeys.existingSecret=keys,nodeSelector.zone=a",
    )
    .await;
    for present in [
        "DINOSERVE_CORS_ORIGIN: \"*\"",
        "credentials: {name: scrape, key: metrics-key}",
        "secretKeyRef: {name: db, key: gallery-url}",
        "DINOSERVE_API_KEYS: /etc/dinoserve/api-keys.toml",
        "kind: Ingress",
        "kind: HorizontalPodAutoscaler",
        "kind: ServiceMonitor",
        "zone: a",
    ] {
        assert!(all.contains(present), "{present}: {all}");
    }
    // The number of pods is that of the autoscaler, and each document is YAML.
    assert!(!all.contains("replicas: "), "{all}");
    let file = scratch("helm").join("all.yaml");
    std::fs::write(&file, &all).unwrap();
    let parse = "import sys, yaml; \
                 print(*[part['kind'] for part in yaml.safe_load_all(open(sys.argv[1])) if part])";
    let kinds = python.run(&["-c", parse, file.to_str().unwrap()]).await;
    assert_eq!(kinds.split_whitespace().count(), 7, "{kinds}");
    validate(&python, &all).await;
    // With the balancer, an ingress leads to it, and it finds the pods by a name.
    let balanced = rendered(&python, "balancer.enabled=true,ingress.enabled=true").await;
    for present in [
        "                name: features-balancer\n                port: {name: http}",
        "{name: REPLICAS, value: features-replicas}",
        "clusterIP: None",
        "    upstream replicas {",
        "exec nginx ",
    ] {
        assert!(balanced.contains(present), "{present}: {balanced}");
    }
    validate(&python, &balanced).await;
    let version = std::fs::read_to_string(Path::new(&chart).join("Chart.yaml")).unwrap();
    // The tag of the released image, too.
    let expected = format!("appVersion: \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(version.contains(&expected), "{version}");
}

#[tokio::test]
async fn the_manifests_are_valid() {
    let Some(python) = Python::find("deployments::the_manifests") else {
        return;
    };
    if !python.has("kubectl") {
        return skip("deployments::the_manifests: there is no kubectl for this machine");
    }
    let folder = in_repository("deploy/k8s");
    let all = python.run_program("kubectl", &["kustomize", &folder]).await;
    for present in [
        "DINOSERVE_SHUTDOWN_DELAY: \"10\"",
        "value: dinoserve-replicas",
        "clusterIP: None",
        "    upstream replicas {",
        "exec nginx ",
    ] {
        assert!(all.contains(present), "{present}: {all}");
    }
    validate(&python, &all).await;
}

#[tokio::test]
async fn the_job_of_kubernetes_and_the_array_of_slurm_are_valid() {
    let script = in_repository("deploy/bulk/slurm.sh");
    let parsed = Command::new("bash").args(["-n", &script]).status();
    assert!(parsed.await.unwrap().success());
    let Some(python) = Python::find("deployments::the_job_of_kubernetes") else {
        return;
    };
    let file = in_repository("deploy/bulk/kubernetes.yaml");
    // The first version with a limit of tries for each index by default.
    for version in ["1.29", "1.37"] {
        let arguments = ["--strict", "--no-warn", "-k", version, &file];
        python.run_program("kubernetes-validate", &arguments).await;
    }
    // The number of shards is in the file twice. What the schemas do not say: a policy for failed
    // pods needs pods that are not restarted.
    let parse = "import sys, yaml; job = yaml.safe_load(open(sys.argv[1]))['spec']; \
                 pod = job['template']['spec']; container = pod['containers'][0]; \
                 shards = [e['value'] for e in container['env'] if e['name'] == 'COMPLETIONS']; \
                 rule = job['podFailurePolicy']['rules'][0]['onExitCodes']; \
                 print(shards == [str(job['completions'])], job['completionMode'], \
                       pod['restartPolicy'], rule['containerName'] == container['name'], \
                       rule['values'], container['args'][0])";
    let printed = python.run(&["-c", parse, &file]).await;
    assert_eq!(printed.trim(), "True Indexed Never True [2] embed");
}

#[tokio::test]
async fn the_service_of_systemd_is_valid() {
    let folder = scratch("systemd");
    let unit = std::fs::read_to_string(in_repository("deploy/systemd/dinoserve.service")).unwrap();
    // As it would be installed; the manual page is not.
    let unit = unit
        .replace("/usr/local/bin/dinoserve", PROGRAM)
        .replace("man:dinoserve-serve(1)", "https://example.org");
    let file = folder.join("dinoserve.service");
    std::fs::write(&file, unit).unwrap();
    let verify = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&file)
        .output();
    let Ok(verified) = verify.await else {
        return skip("deployments::systemd: systemd-analyze is missing");
    };
    // It may also complain of other units of the machine.
    let complaints = String::from_utf8_lossy(&verified.stderr);
    let is_valid = verified.status.success() && !complaints.contains("dinoserve.service");
    assert!(is_valid, "{verified:?}");

    // Its configuration file is one that the program reads.
    let settings = in_repository("deploy/systemd/dinoserve.toml");
    let config = Command::new(PROGRAM)
        .args(["config", "--config", &settings])
        .current_dir(&folder)
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&config.stdout);
    assert!(config.status.success(), "{config:?}");
    assert!(printed.contains("/var/lib/dinoserve/gallery"), "{printed}");
}

#[tokio::test]
async fn the_release_workflow_is_valid() {
    let Some(python) = Python::find("deployments::the_release_workflow") else {
        return;
    };
    let workflow = in_repository(".github/workflows/release.yml");
    let schema = ["--builtin-schema", "vendor.github-workflows", &workflow];
    python.run_program("check-jsonschema", &schema).await;
    let audit = ["--offline", "--no-progress", "--quiet", &workflow];
    python.run_program("zizmor", &audit).await;
    // Its scripts are those of this repository, and the shell can parse them.
    let text = std::fs::read_to_string(&workflow).unwrap();
    assert!(text.contains("deploy/release.sh") && text.contains("make wheel"));
    let parsed = Command::new("bash")
        .args(["-n", &in_repository("deploy/release.sh")])
        .status();
    assert!(parsed.await.unwrap().success());
}
