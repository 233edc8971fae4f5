//! Weight files: every supported form, and invalid ones.

use std::{collections::BTreeMap, path::Path};

use dinoserve::{
    artifacts::{Manifest, ModelFile},
    error::{Error, Kind},
    model::{Catalog, ModelSpec, PositionRule},
    onnx::Precision,
};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::support::{
    convert_file, focus, focus_source, golden, read_golden, scratch, tiny, tiny_spec,
};

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(name: &str) -> Tensors {
    let bytes = read_golden(&format!("{name}/model.safetensors"));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            (
                name.to_owned(),
                (view.dtype(), view.shape().to_vec(), view.data().to_vec()),
            )
        })
        .collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (
            name.clone(),
            TensorView::new(*dtype, shape.clone(), data).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn converted(name: &str, from: &Path) -> Result<Manifest, Error> {
    let to = from.with_extension("converted.onnx");
    convert_file(&tiny_spec(name), from, Precision::Fp32, &to)
}

fn fingerprint_of(name: &str) -> String {
    tiny(name, "model.safetensors").fingerprint
}

#[test]
fn shards_are_one_model() {
    let folder = scratch("shards");
    let all = tensors("tiny-swiglu-reg");
    let mut shards = [Tensors::new(), Tensors::new()];
    let mut map = serde_json::Map::new();
    for (index, (name, tensor)) in all.into_iter().enumerate() {
        map.insert(
            name.clone(),
            format!("model-{}-of-2.safetensors", index % 2 + 1).into(),
        );
        shards[index % 2].insert(name, tensor);
    }
    shards.iter().enumerate().for_each(|(i, shard)| {
        write(
            &folder.join(format!("model-{}-of-2.safetensors", i + 1)),
            shard,
        );
    });
    let index = folder.join("model.safetensors.index.json");
    std::fs::write(
        &index,
        serde_json::json!({"metadata": {}, "weight_map": map}).to_string(),
    )
    .unwrap();
    assert_eq!(
        converted("tiny-swiglu-reg", &index).unwrap().fingerprint,
        fingerprint_of("tiny-swiglu-reg")
    );

    std::fs::write(&index, r#"{"weight_map": {"a": "../../etc/passwd"}}"#).unwrap();
    let error = converted("tiny-swiglu-reg", &index).unwrap_err();
    assert!(error.detail().contains("not a plain file name"), "{error}");
}

/// Returns a safetensors file whose header has `length` bytes.
fn with_header_of(length: usize, file: &[u8]) -> Vec<u8> {
    let (head, rest) = file.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*head) as usize);
    assert!(header.len() <= length, "{} bytes", header.len());
    let mut padded = header.to_vec();
    padded.resize(length, b' ');
    [&(length as u64).to_le_bytes()[..], &padded, data].concat()
}

/// The length of a header can have the bytes at the front of a pickle: 0x80, then a protocol.
#[test]
fn the_length_of_a_header_is_not_taken_for_a_pickle() {
    let folder = scratch("headers");
    let whole = read_golden("tiny/model.safetensors");
    for (length, name) in [
        (0x1_0080, "model.safetensors"),
        (0x2_0280, "model.bin"),
        (0x1_0580, "model"),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, with_header_of(length, &whole)).unwrap();
        let found = converted("tiny", &path).unwrap_or_else(|error| panic!("{length}: {error}"));
        assert_eq!(found.fingerprint, fingerprint_of("tiny"), "{length}");
    }
    // A cut file is still one of safetensors.
    let path = folder.join("cut.safetensors");
    std::fs::write(&path, &with_header_of(0x1_0080, &whole)[..60_000]).unwrap();
    let error = converted("tiny", &path).unwrap_err();
    assert!(
        error.detail().contains("not a valid safetensors file"),
        "{error}"
    );

    let mut map = serde_json::Map::new();
    let all: Vec<_> = tensors("tiny").into_iter().collect();
    for (index, part) in all.chunks(6).enumerate() {
        let shard = format!("model-{index}.safetensors");
        let path = folder.join(&shard);
        write(&path, &part.iter().cloned().collect());
        let padded = with_header_of(1408, &std::fs::read(&path).unwrap());
        std::fs::write(&path, padded).unwrap();
        map.extend(
            part.iter()
                .map(|(name, _)| (name.clone(), shard.clone().into())),
        );
    }
    let index = folder.join("model.safetensors.index.json");
    let text = serde_json::json!({"weight_map": map}).to_string();
    std::fs::write(&index, text).unwrap();
    let found = converted("tiny", &index).unwrap();
    assert_eq!(found.fingerprint, fingerprint_of("tiny"));
}

#[test]
fn names_may_have_a_prefix() {
    for prefix in ["dinov2.", "backbone.", "dinov2_with_registers."] {
        let path = scratch("prefix").join("model.safetensors");
        let prefixed = tensors("tiny-reg")
            .into_iter()
            .map(|(name, tensor)| (format!("{prefix}{name}"), tensor))
            .collect();
        write(&path, &prefixed);
        assert_eq!(
            converted("tiny-reg", &path).unwrap().fingerprint,
            fingerprint_of("tiny-reg")
        );
    }
}

#[test]
fn half_precision_weights_are_read() {
    let floats = |data: &[u8]| {
        data.chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    let mut seen = vec![fingerprint_of("tiny")];
    for dtype in [Dtype::F16, Dtype::BF16] {
        let path = scratch("half").join(format!("{dtype:?}.safetensors"));
        let halved: Tensors = tensors("tiny")
            .into_iter()
            .map(|(name, (_, shape, data))| {
                let data = floats(&data).into_iter().flat_map(|v| match dtype {
                    Dtype::F16 => f16::from_f32(v).to_le_bytes(),
                    _ => bf16::from_f32(v).to_le_bytes(),
                });
                (name, (dtype, shape, data.collect()))
            })
            .collect();
        write(&path, &halved);
        // Equals the f32 file of the rounded values.
        let rounded: Tensors = tensors("tiny")
            .into_iter()
            .map(|(name, (_, shape, data))| {
                let data = floats(&data).into_iter().flat_map(|v| match dtype {
                    Dtype::F16 => f16::from_f32(v).to_f32().to_le_bytes(),
                    _ => bf16::from_f32(v).to_f32().to_le_bytes(),
                });
                (name, (Dtype::F32, shape, data.collect()))
            })
            .collect();
        let rounded_path = scratch("half").join(format!("{dtype:?}-rounded.safetensors"));
        write(&rounded_path, &rounded);
        let fingerprint = converted("tiny", &path).unwrap().fingerprint;
        assert_eq!(
            fingerprint,
            converted("tiny", &rounded_path).unwrap().fingerprint
        );
        assert!(!seen.contains(&fingerprint));
        seen.push(fingerprint);
    }
}

#[test]
fn wrong_weights_are_named() {
    let folder = scratch("wrong");
    let case = |change: &dyn Fn(&mut Tensors)| {
        let mut all = tensors("tiny");
        change(&mut all);
        let path = folder.join("model.safetensors");
        write(&path, &all);
        converted("tiny", &path).unwrap_err().to_string()
    };
    let error = case(&|all| drop(all.remove("encoder.layer.1.mlp.fc1.bias")));
    assert!(
        error.contains("no tensor encoder.layer.1.mlp.fc1.bias"),
        "{error}"
    );
    let error = case(&|all| {
        let other = all["layernorm.weight"].clone();
        all.insert("encoder.layer.0.mlp.fc1.bias".to_owned(), other);
    });
    assert!(
        error.contains("encoder.layer.0.mlp.fc1.bias has shape [64], but this model needs [256]"),
        "{error}"
    );
    let error = case(&|all| all.retain(|name, _| name.starts_with("layernorm")));
    assert!(error.contains("no `cls_token`"), "{error}");

    // More tensors than the model has.
    let converted_as = |spec: &ModelSpec, from: &Path| {
        convert_file(spec, from, Precision::Fp32, &folder.join("other.onnx"))
    };
    let error =
        converted_as(&tiny_spec("tiny"), &golden("tiny-reg/model.safetensors")).unwrap_err();
    assert!(
        error
            .detail()
            .contains("they need registers = 4, but tiny has registers = 0"),
        "{error}"
    );
    let mut shallow = tiny_spec("tiny");
    shallow.architecture.depth = 1;
    let error = converted_as(&shallow, &golden("tiny/model.safetensors")).unwrap_err();
    assert!(
        error
            .detail()
            .contains("they need depth = 2, but tiny has depth = 1"),
        "{error}"
    );
    let deflated = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    let path = folder.join("deflated.pth");
    let mut archive =
        zip::ZipArchive::new(std::fs::File::open(golden("tiny/hub_pretrain.pth")).unwrap())
            .unwrap();
    let mut copy = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for at in 0..archive.len() {
        let mut entry = archive.by_index(at).unwrap();
        copy.start_file(entry.name().unwrap().into_owned(), deflated)
            .unwrap();
        std::io::copy(&mut entry, &mut copy).unwrap();
    }
    copy.finish().unwrap();
    let error = converted("tiny", &path).unwrap_err();
    assert!(
        error
            .detail()
            .contains("is compressed, which PyTorch does not do"),
        "{error}"
    );

    // Another model's weights.
    let to = folder.join("x.onnx");
    let error =
        convert_file(&tiny_spec("tiny"), &focus_source(), Precision::Fp32, &to).unwrap_err();
    assert!(
        error
            .detail()
            .contains("are ViT-S/14, 12 blocks, width 384; they need dim = 384, depth = 12"),
        "{error}"
    );
    assert!(
        !folder.join("x.onnx").exists(),
        "nothing is left of a failed conversion"
    );
    let left: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.to_string_lossy().starts_with(".writing")),
        "{left:?}"
    );
}

#[test]
fn damaged_files_are_rejected_without_a_panic() {
    let folder = scratch("damaged");
    let sources = [
        ("tiny/model.safetensors", "safetensors"),
        ("tiny/hub_pretrain.pth", "pth"),
    ];
    let mut files: Vec<(Vec<u8>, &str)> = sources
        .iter()
        .map(|(file, ending)| (read_golden(file), *ending))
        .collect();
    let onnx = std::fs::read(&tiny("tiny", "model.safetensors").paths.model).unwrap();
    files.push((onnx, "onnx"));
    for (bytes, ending) in files {
        let path = folder.join(format!("model.{ending}"));
        for cut in [0, 1, 7, 100, bytes.len() / 3, bytes.len() - 30] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let error = converted("tiny", &path).unwrap_err();
            assert_eq!(
                error.kind(),
                Kind::Artifact,
                "{ending} cut at {cut}: {error}"
            );
        }
        // A changed byte in the head of the file gives an error or other weights, but no panic.
        for at in (0..2000.min(bytes.len())).step_by(13) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            std::fs::write(&path, &changed).unwrap();
            let _ = converted("tiny", &path);
        }
    }
}

#[test]
fn a_checkpoint_cannot_run_code_or_exhaust_memory() {
    use std::io::Write;
    let folder = scratch("hostile");
    let checkpoint = |pickle: &[u8]| {
        let path = folder.join("model.pth");
        let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        archive
            .start_file("archive/data.pkl", zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(pickle).unwrap();
        archive
            .start_file(
                "archive/data/0",
                zip::write::SimpleFileOptions::default()
                    .compression_method(zip::CompressionMethod::Stored),
            )
            .unwrap();
        archive.write_all(&[0; 4]).unwrap();
        archive.finish().unwrap();
        converted("tiny", &path).unwrap_err().to_string()
    };
    let marker = folder.join("marker");
    let system = format!(
        "cos\nsystem\n(X{}touch {}tR.",
        "\u{7}\0\0\0",
        marker.display()
    );
    checkpoint(system.as_bytes());
    assert!(!marker.exists(), "nothing is called");
    // Deep nesting: a million tuples in tuples, then a million dictionaries in dictionaries.
    let mut tuples = b"\x80\x02)".to_vec();
    tuples.extend(std::iter::repeat_n(b'\x85', 1_000_000));
    tuples.push(b'.');
    checkpoint(&tuples);
    let mut dicts = b"\x80\x02".to_vec();
    (0..200_000).for_each(|_| dicts.extend_from_slice(b"}X\x01\0\0\0a"));
    dicts.extend_from_slice(b"N");
    dicts.extend(std::iter::repeat_n(b's', 200_000));
    dicts.push(b'.');
    checkpoint(&dicts);
    // Both in turn: a dictionary in a tuple in a dictionary.
    let mut both = b"\x80\x02".to_vec();
    (0..300_000).for_each(|_| both.extend_from_slice(b"}\x8c\x01k"));
    both.push(b'}');
    (0..300_000).for_each(|_| both.extend_from_slice(b"\x85s"));
    both.push(b'.');
    checkpoint(&both);
    // A tuple of itself, doubled forty times.
    let mut bomb = b"\x80\x02)q\x00".to_vec();
    (0..40).for_each(|_| bomb.extend_from_slice(b"h\x00h\x00\x86q\x00"));
    bomb.push(b'.');
    checkpoint(&bomb);

    // A few bytes that repeat what came before.
    let repeated = |head: &[u8], part: &[u8], count: usize| {
        let mut pickle = [b"\x80\x04", head].concat();
        (0..count).for_each(|_| pickle.extend_from_slice(part));
        pickle.push(b'.');
        checkpoint(&pickle)
    };
    let text = |length: usize| {
        let mut text = b"X".to_vec();
        text.extend_from_slice(&(length as u32).to_le_bytes());
        text.resize(text.len() + length, b'a');
        text
    };
    let remembered = |length: usize| [&text(length)[..], b"q\x000"].concat();
    let error = repeated(&remembered(8 << 20), b"h\x00h\x00\x930", 1000);
    assert!(
        error.contains("names a class with 16777217 bytes"),
        "{error}"
    );
    let items = [b"](".as_slice(), &[b'N'; 100_000], b"eq\x000"].concat();
    let pairs = [b"](".as_slice(), &b"NN\x86".repeat(100_000), b"eq\x000"].concat();
    let dict = b"ccollections\nOrderedDict\nq\x010";
    let class = [
        b"c".as_slice(),
        &[b'a'; 500],
        b"\n",
        &[b'b'; 500],
        b"\nq\x000",
    ]
    .concat();
    for (head, part, count) in [
        // Names of classes.
        (remembered(500), b"h\x00h\x00\x930".as_slice(), 1_000_000),
        // Instances, on the stack and not.
        (class.clone(), b"h\x00)\x810", 2_000_000),
        (class, b"h\x00)\x81", 2_000_000),
        // Dictionaries of one list, with pairs and without.
        ([&items[..], dict].concat(), b"h\x01h\x00\x85R0", 1000),
        ([&pairs[..], dict].concat(), b"h\x01h\x00\x85R0", 1000),
        // The stack, and the memo.
        (Vec::new(), b"N", 15_000_000),
        (b"N".to_vec(), b"\x94", 15_000_000),
        // Entries of a dictionary, and items of a list.
        (b"}".to_vec(), b"(NNNNNNNNNNNNNNu", 900_000),
        (b"]".to_vec(), b"(NNNNNNNNNNNNNNe", 900_000),
    ] {
        let error = repeated(&head, part, count);
        let part = part.escape_ascii();
        assert!(
            error.contains("objects of more than 256 MiB"),
            "{part}: {error}"
        );
    }
    // A tensor with many axes, and one under many long names.
    let tensor = |axes: usize| {
        let storage =
            b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ";
        let sizes = [b"(".as_slice(), &b"K\x01".repeat(axes), b"t"].concat();
        let function = b"ctorch._utils\n_rebuild_tensor_v2\n";
        [
            function.as_slice(),
            storage,
            b"K\0",
            &sizes,
            &sizes,
            b"\x89}tR",
        ]
        .concat()
    };
    let error = repeated(&tensor(65), b"", 0);
    assert!(error.contains("shape does not consist of sizes"), "{error}");
    let long = text(1000);
    let list = [
        b"](".as_slice(),
        &tensor(1),
        b"q\x00",
        &b"h\x00".repeat(999),
        b"eq\x010",
    ]
    .concat();
    let head = [&list[..], b"}", &long, b"]("].concat();
    let error = repeated(&[&head[..], &b"h\x01".repeat(1000), b"es"].concat(), b"", 0);
    assert!(error.contains("more than 200000 tensors"), "{error}");
}

#[test]
fn the_catalog_knows_the_official_models() {
    let catalog = Catalog::built_in().unwrap();
    let names: Vec<&str> = catalog.iter().map(|spec| spec.name.as_str()).collect();
    for size in ["small", "base", "large", "giant"] {
        assert!(
            names.contains(&format!("dinov2-{size}").as_str())
                && names.contains(&format!("dinov2-{size}-reg").as_str())
        );
    }
    // Meta's parameter counts, in millions: 21, 86, 300, 1100.
    for (size, millions) in [
        ("small", 21.0),
        ("base", 86.0),
        ("large", 303.0),
        ("giant", 1135.0),
    ] {
        let spec = catalog.get(&format!("dinov2-{size}")).unwrap();
        let ffn = if spec.architecture.ffn == dinoserve::model::Ffn::Swiglu {
            3
        } else {
            2
        };
        let block = 4 * spec.architecture.dim * spec.architecture.dim
            + ffn * spec.architecture.dim * spec.architecture.ffn_hidden;
        let parameters = (spec.architecture.depth * block) as f64 / 1e6;
        assert!(
            (parameters / millions - 1.0).abs() < 0.02,
            "{size}: {parameters}"
        );
        assert_eq!(spec.architecture.dim / spec.architecture.heads, 64);
    }
}

#[test]
fn a_converted_model_describes_itself() {
    let model = focus();
    assert_eq!(
        (model.spec.name.as_str(), model.precision),
        ("dinov2-small-focus", Precision::Fp32)
    );
    let manifest = Manifest::read(&model.paths).unwrap();
    assert_eq!(manifest.fingerprint, model.fingerprint);
    assert_eq!(
        manifest.source_sha256,
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
    );
    manifest.verify(&model.paths, &mut ()).unwrap();
    // An ONNX file of another program gets another message than a damaged one.
    let error = ModelFile::open(&focus_source(), PositionRule::Hub).unwrap_err();
    assert!(
        error
            .detail()
            .contains("not a model that `dinoserve models convert` wrote"),
        "{error}"
    );
    let error = ModelFile::open(&golden("tiny/model.safetensors"), PositionRule::Hub).unwrap_err();
    assert!(error.detail().contains("not an ONNX file"), "{error}");
}
