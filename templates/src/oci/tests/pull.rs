//! Images from a registry.

use std::fs;

use super::made::{Image, LayerBuilder};
use super::server::{Manners, Server};
use super::{Bench, How, rooted};
use crate::oci::Access;

fn image() -> Image {
    let mut image = Image::new();
    image.config["config"] = serde_json::json!({"Cmd": ["/app"]});
    let mut layer = LayerBuilder::new();
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    let noise: Vec<u8> = (0..400_000).map(|_| noise()).collect();
    layer.file("app", &noise, 0o755);
    image.layer(layer.gzip());
    image
}

fn good(manners: Manners) -> Server {
    let bench = Bench::new();
    let server = Server::start(&image().finish(), manners);
    let template = bench.import(&format!("docker://{}/a/b:v1", server.host)).unwrap();
    assert_eq!(fs::metadata(bench.tree(&template).join("app")).unwrap().len(), 400_000);
    server
}

#[test]
fn an_image_is_fetched_with_a_token_that_goes_nowhere_else() {
    if !rooted() {
        return;
    }
    let server = good(Manners { token: true, redirect: true, ..Manners::default() });
    // One token for all; the place that blobs are redirected to never saw it (it would refuse them).
    assert_eq!(server.asked("/token?"), 1);
    assert!(server.asked("/elsewhere/") >= 2);
}

#[test]
fn a_broken_connection_goes_on_where_it_broke() {
    if !rooted() {
        return;
    }
    let server = good(Manners { cut: Some(100_000), ..Manners::default() });
    assert!(server.asked("Some(100000)") >= 1, "{:?}", server.log);
    // A registry without ranges sends all of it again.
    good(Manners { cut: Some(100_000), no_range: true, ..Manners::default() });
    good(Manners { busy: 2, ..Manners::default() });
}

#[test]
fn what_a_registry_sends_is_compared() {
    if !rooted() {
        return;
    }
    let bench = Bench::new();
    let server = Server::start(&image().finish(), Manners { lie: true, ..Manners::default() });
    let error = bench.import(&format!("docker://{}/a/b:v1", server.host)).unwrap_err();
    assert_eq!(error.exit(), vzconf::Exit::FsBadTmpl, "{error}");
    bench.is_clean();
    let server = Server::start(&image().finish(), Manners::default());
    let wrong = super::made::digest(b"something else");
    for (name, exit) in [
        ("a/b:v2".to_owned(), vzconf::Exit::OstemplateNotFound),
        (format!("a/b@{wrong}"), vzconf::Exit::OstemplateNotFound),
    ] {
        let error = bench.import(&format!("docker://{}/{name}", server.host)).unwrap_err();
        assert_eq!(error.exit(), exit, "{error}");
        bench.is_clean();
    }
}

#[test]
fn without_a_network_it_is_told_at_once_what_to_look_at() {
    let bench = Bench::new();
    // Nobody listens there.
    let error = bench.import("docker://127.0.0.1:1/a/b:v1").unwrap_err();
    assert_eq!(error.exit(), vzconf::Exit::System);
    assert!(error.to_string().contains("cannot reach http://127.0.0.1:1/v2/a/b/manifests/v1"), "{error}");
    assert!(error.to_string().contains("proxy"), "{error}");
    bench.is_clean();
    // Plain HTTP is never spoken unless it was asked for.
    let server = Server::start(&image().finish(), Manners::default());
    let how = How { access: Access::default(), ..bench.how() };
    bench.import_with(&format!("docker://{}/a/b:v1", server.host), &how).unwrap_err();
    assert_eq!(server.asked("/v2/"), 0);
}
