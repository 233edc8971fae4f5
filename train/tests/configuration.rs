//! Configurations: defaults, overrides, and the errors of wrong values.

use dinoserve::model::{Architecture, Catalog};
use dinoserve_train::{config::Config, model::Arch};

use crate::support::tiny_config;

#[test]
fn the_default_configuration_is_valid_and_survives_writing_and_parsing() {
    let config = Config::default();
    config.check().unwrap();
    assert_eq!(Config::parse(&config.to_toml(), &[]).unwrap(), config);
    let architecture = config.spec("mine").unwrap().architecture;
    let native_grid = 16;
    assert_eq!(
        architecture,
        Architecture {
            native_grid,
            ..Architecture::DINOV2_SMALL
        }
    );
    tiny_config().check().unwrap();
}

#[test]
fn settings_override_the_file() {
    let settings = [
        "optimiser.epochs=7",
        "loss.centring=sinkhorn_knopp",
        "crops.global_scale=[0.3, 0.9]",
    ]
    .map(str::to_owned);
    let config = Config::parse("[optimiser]\nepochs = 3\nbatch = 8\n", &settings).unwrap();
    assert_eq!((config.optimizer.epochs, config.optimizer.batch), (7, 8));
    assert_eq!(config.crops.global_scale, [0.3, 0.9]);
    assert!(config.to_toml().contains("centring = \"sinkhorn_knopp\""));
}

#[test]
fn errors_name_the_wrong_key_and_what_is_allowed() {
    let unknown = Config::parse("[optimiser]\nepoch = 3\n", &[]).unwrap_err();
    let unknown = format!("{unknown:#}");
    assert!(unknown.contains("unknown field `epoch`"), "{unknown}");

    let rows: [(&[&str], &str); 11] = [
        (
            &["optimiser.epochs"],
            "the form is `--set optimiser.epochs=20`",
        ),
        (&["crops.global_size=100"], "use 98 or 112"),
        (
            &["optimiser.batch=0"],
            "optimiser.batch is 0; it must be at least 1",
        ),
        (
            &["model.heads=5"],
            "`dim` must be a positive multiple of `heads`",
        ),
        (
            &["loss.student_temperature=0"],
            "loss.student_temperature is 0; it must be above 0",
        ),
        (
            &["crops.local_scale=[0.5, 0.2]"],
            "crops.local_scale is 0.5 to 0.2",
        ),
        (
            &["crops.blur=[2.0, 1.0]"],
            "crops.blur is 2 to 1; both must be from 0.01 to 20",
        ),
        (
            &["model.drop_path=1.0"],
            "model.drop_path is 1; it must be at least 0",
        ),
        (
            &["optimiser.epochs=5"],
            "`--set optimiser.warmup_epochs=0.5`",
        ),
        (
            &["optimiser.final_learning_rate=-1e-3"],
            "optimiser.final_learning_rate is -0.001",
        ),
        (
            &["optimiser.batch=1", "loss.koleo_weight=0.1"],
            "loss.koleo_weight needs a neighbor",
        ),
    ];
    for (settings, text) in rows {
        let owned: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        match Config::parse("", &owned).and_then(|config| config.check()) {
            Ok(()) => panic!("{settings:?} is accepted"),
            Err(error) => {
                let error = format!("{error:#}");
                assert!(error.contains(text), "{settings:?}: {error}");
            }
        }
    }
}

#[test]
fn named_architectures_have_the_sizes_of_the_catalog() {
    let catalog = Catalog::built_in().unwrap();
    for (arch, name) in [
        (Arch::Small, "dinov2-small"),
        (Arch::Base, "dinov2-base"),
        (Arch::Large, "dinov2-large"),
    ] {
        let published = catalog.get(name).unwrap();
        let mut config = Config::default();
        config.model.set_arch(arch);
        let mut architecture = config.spec("x").unwrap().architecture;
        architecture.native_grid = published.architecture.native_grid;
        assert_eq!(architecture, published.architecture, "{name}");
        config.model.set_spec(published).unwrap();
        let architecture = config.spec("x").unwrap().architecture;
        assert_eq!(architecture, published.architecture, "{name}");
    }
}
