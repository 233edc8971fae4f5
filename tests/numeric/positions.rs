//! Hugging Face's rule for position tables. Every golden of a size other than 518 pixels tests the
//! hub's rule.

use dinoserve::{
    artifacts::ModelFile,
    model::{PositionRule, PositionTable},
    vision::Grid,
};
use ndarray::{Array2, s};
use serde::Deserialize;

use crate::support::{difference, read_golden, tiny, tiny_spec};

#[derive(Deserialize)]
struct Case {
    height: usize,
    width: usize,
    table: Vec<f32>,
}

#[test]
fn the_hf_rule_matches_its_reference() {
    let mut spec = tiny_spec("tiny");
    (spec.architecture.dim, spec.architecture.heads) = (1, 1);
    let mut table = Array2::zeros((1 + 37 * 37, 1));
    table[(0, 0)] = 7.0;
    for (y, x) in (0..37).flat_map(|y| (0..37).map(move |x| (y, x))) {
        let fy = y as f64;
        let fx = x as f64;
        table[(1 + y * 37 + x, 0)] =
            ((0.7 * fy + 0.3).sin() + 0.5 * (1.1 * fx).cos() + 0.01 * fy * fx) as f32;
    }
    let positions = PositionTable::new(table.clone(), &spec.architecture, PositionRule::Hf);
    let hub = PositionTable::new(table.clone(), &spec.architecture, PositionRule::Hub);
    let cases: Vec<Case> = serde_json::from_slice(&read_golden("positions/hf.json")).unwrap();
    for case in cases {
        let grid = Grid {
            height: case.height,
            width: case.width,
        };
        let found = positions.interpolate(grid);
        assert_eq!(found[(0, 0)], 7.0, "the CLS row is never touched");
        let (largest, _) = difference(found.slice(s![1.., 0]), &case.table);
        assert!(largest < 2e-5, "{grid:?}: {largest}");
        assert!(
            difference(&found, &hub.interpolate(grid)).0 > 1e-3,
            "the hub's rule differs"
        );
    }
    assert_eq!(
        positions.interpolate(Grid {
            height: 37,
            width: 37
        }),
        table
    );
}

#[test]
fn the_rule_is_part_of_the_fingerprint() {
    let hub = tiny("tiny", "model.safetensors");
    let hf = ModelFile::open(&hub.paths.model, PositionRule::Hf).unwrap();
    assert_ne!(hub.fingerprint, hf.fingerprint);
    assert_eq!(hf.fingerprint.len(), 64);
}
