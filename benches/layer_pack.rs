//! From trees to layers: what a layer digest costs, and what its compressed bytes cost.

use std::path::Path;

use criterion::{Criterion, Throughput};
use rbuild_image::compress::{CompressedWriter, Encoding};
use rbuild_image::layer::{PackOptions, pack};
use rbuild_rooted::Root;
use rbuild_types::CancelToken;

/// Files and the bytes of each.
struct Tree {
    name: &'static str,
    files: usize,
    bytes: usize,
}

const TREES: [Tree; 2] = [
    Tree { name: "2,000 files of 2 KiB", files: 2000, bytes: 2 << 10 },
    Tree { name: "16 files of 4 MiB", files: 16, bytes: 4 << 20 },
];

fn layer_pack(criterion: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().build().expect("threads can be started");
    let cancel = CancelToken::default();
    for tree in TREES {
        let folder = tempfile::tempdir().expect("a folder can be made");
        fill(folder.path(), &tree);
        let root = Root::open(folder.path()).expect("the folder can be opened");
        let mut group = criterion.benchmark_group(tree.name);
        group.sample_size(10);
        group.throughput(Throughput::Bytes((tree.files * tree.bytes) as u64));
        group.bench_function("digest only", |bencher| {
            bencher.iter(|| pack(&root, &PackOptions::default(), &mut std::io::sink(), &cancel));
        });
        group.bench_function("gzip", |bencher| {
            bencher.iter(|| {
                let mut writer = CompressedWriter::new(std::io::sink(), Encoding::GZIP, &pool);
                let packed = pack(&root, &PackOptions::default(), &mut writer, &cancel);
                (packed, writer.finish().map(drop))
            });
        });
        group.finish();
    }
}

/// Text that compresses to about a third, as programs and documents do.
fn fill(folder: &Path, tree: &Tree) {
    let mut state = 1_u64;
    for file in 0..tree.files {
        let mut text = Vec::with_capacity(tree.bytes + 8);
        while text.len() < tree.bytes {
            // A linear congruence of Knuth's: the same bytes on every machine.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = format!("{:05} ", state >> 50);
            text.extend_from_slice(word.as_bytes());
        }
        text.truncate(tree.bytes);
        let below = folder.join(format!("dir-{}", file % 40));
        fs_err::create_dir_all(&below).expect("a folder can be made");
        fs_err::write(below.join(format!("file-{file}")), text).expect("a file can be written");
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    layer_pack(&mut criterion);
    criterion.final_summary();
}
