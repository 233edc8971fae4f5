//! Configurations: what they refuse, and how they say it.

use dinoserve::model::Catalog;
use dinoserve_train::config::{Arch, Config};

use crate::support::tiny_config;

fn refused(text: &str, settings: &[&str]) -> String {
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    let refused = Config::parse(text, &settings).and_then(|config| config.check());
    format!("{:#}", refused.expect_err("it is refused"))
}

#[test]
fn defaults_are_right_and_survive_being_written() {
    let config = Config::default();
    config.check().unwrap();
    assert_eq!(Config::parse(&config.to_toml(), &[]).unwrap(), config);
    let spec = config.spec("mine").unwrap();
    assert_eq!(
        (
            spec.dim,
            spec.depth,
            spec.heads,
            spec.ffn_hidden,
            spec.native_grid
        ),
        (384, 12, 6, 1536, 16)
    );
    tiny_config().check().unwrap();
}

#[test]
fn settings_overrule_the_file() {
    let settings = [
        "optimiser.epochs=7",
        "loss.centring=sinkhorn_knopp",
        "crops.global_scale=[0.3, 0.9]",
    ];
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    let config = Config::parse("[optimiser]\nepochs = 3\nbatch = 8\n", &settings).unwrap();
    assert_eq!((config.optimiser.epochs, config.optimiser.batch), (7, 8));
    assert_eq!(config.crops.global_scale, [0.3, 0.9]);
    assert!(config.to_toml().contains("centring = \"sinkhorn_knopp\""));
}

#[test]
fn what_is_wrong_is_named() {
    assert!(refused("[optimiser]\nepoch = 3\n", &[]).contains("unknown field `epoch`"));
    assert!(
        refused("", &["optimiser.epochs"])
            .contains("it should be as in `--set optimiser.epochs=20`")
    );
    assert!(refused("", &["crops.global_size=100"]).contains("use 98 or 112"));
    assert!(
        refused("", &["optimiser.batch=0"]).contains("optimiser.batch is 0; it must be at least 1")
    );
    assert!(
        refused("", &["model.heads=5"]).contains("`dim` must be a positive multiple of `heads`")
    );
    assert!(
        refused("", &["loss.student_temperature=0"])
            .contains("loss.student_temperature is 0; it must be above 0")
    );
    assert!(
        refused("", &["crops.local_scale=[0.5, 0.2]"]).contains("crops.local_scale is 0.5 to 0.2")
    );
    assert!(
        refused("", &["crops.blur=[2.0, 1.0]"])
            .contains("crops.blur is 2 to 1; both must be from 0.01 to 20")
    );
    assert!(refused("", &["model.drop_path=1.0"]).contains("model.drop_path is 1"));
    assert!(refused("", &["optimiser.epochs=5"]).contains("`--set optimiser.warmup_epochs=0.5`"));
    assert!(
        refused("", &["optimiser.final_learning_rate=-1e-3"])
            .contains("optimiser.final_learning_rate is -0.001")
    );
    assert!(
        refused("", &["optimiser.batch=1", "loss.koleo_weight=0.1"]).contains("needs a neighbor")
    );
}

#[test]
fn architectures_are_those_of_the_catalog() {
    let catalog = Catalog::built_in().unwrap();
    for (arch, name) in [
        (Arch::Small, "dinov2-small"),
        (Arch::Base, "dinov2-base"),
        (Arch::Large, "dinov2-large"),
    ] {
        let published = catalog.get(name).unwrap();
        let mut config = Config::default();
        config.model.take(arch);
        let sizes = |spec: &dinoserve::model::ModelSpec| {
            (spec.dim, spec.depth, spec.heads, spec.ffn, spec.ffn_hidden)
        };
        assert_eq!(sizes(&config.spec("x").unwrap()), sizes(published));
        config.model.take_spec(published);
        assert_eq!(config.spec("x").unwrap().native_grid, published.native_grid);
    }
}
