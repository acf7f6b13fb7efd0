//! From syntax to the instruction graph.

use std::hint::black_box;

use criterion::Criterion;
use rbuild_benches::dockerfile;
use rbuild_plan::{ImageConfigs, ImageError, Options, ResolvedImage, lower};
use rbuild_types::{ImageConfig, Platform, Reference};

/// Every image there is, and all of them empty.
struct AnyImage;

impl ImageConfigs for AnyImage {
    fn config(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, ImageError> {
        let config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            ..ImageConfig::default()
        };
        Ok(ResolvedImage { reference: reference.clone(), platform: platform.clone(), config })
    }
}

fn plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    for lines in [100, 1000] {
        let text = dockerfile(lines);
        let (syntax, _) = rbuild_parser::parse(&text);
        let options = Options::default();
        assert!(lower(&text, &syntax, &options, &AnyImage).is_ok(), "the text can be built");
        group.bench_function(format!("stages on one another, {lines} lines"), |bencher| {
            bencher.iter(|| lower(&text, black_box(&syntax), &options, &AnyImage));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    plan(&mut criterion);
    criterion.final_summary();
}
