//! Drains under load. No request may be lost unless it takes longer than the shutdown timeout.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use lifesign_e2e::engine::{
    Container, Image, Network, Program as Packaged, TIMEOUT, config, eventually, get,
};

use crate::{
    load::{Load, Tally},
    process::Program,
};

const DRAINS: u32 = 100;

#[test]
fn a_hundred_drains_lose_no_request() {
    const AT_ONCE: u32 = 4;
    let next = AtomicU32::new(0);
    let mut total = Tally::default();
    thread::scope(|scope| {
        let drains = [(); AT_ONCE as usize].map(|()| {
            scope.spawn(|| {
                let mut tally = Tally::default();
                while next.fetch_add(1, Ordering::Relaxed) < DRAINS {
                    let (program, address) = Program::listening("serve", &[("DRAIN_DELAY", "700")]);
                    let load = Load::start(address, 6);
                    thread::sleep(Duration::from_millis(1500));
                    program.signal("TERM");
                    let end = program.end();
                    assert_eq!(end.code, Some(0), "{}", end.log);
                    assert!(!end.log.contains("cut"), "{}", end.log);
                    tally.add(load.end());
                }
                tally
            })
        });
        for drain in drains {
            total.add(drain.join().expect("the drain passes"));
        }
    });

    println!("{DRAINS} drains: {total}");
    assert!(total.lost.is_empty(), "{total}");
    assert!(
        total.kept > 1000 && total.fresh > 1000,
        "too little load: {total}"
    );
}

#[test]
fn a_hundred_drains_behind_haproxy_lose_no_request() {
    const AT_ONCE: u32 = 4;
    let image = Image::of(Packaged::Lifecycle);
    let mut total = Tally::default();
    thread::scope(|scope| {
        let image = &image;
        let groups = [(); AT_ONCE as usize]
            .map(|()| scope.spawn(move || replace_behind_haproxy(image, DRAINS / AT_ONCE)));
        for group in groups {
            total.add(group.join().expect("the drains pass"));
        }
    });

    println!("{DRAINS} drains behind HAProxy: {total}");
    assert!(total.lost.is_empty(), "{total}");
    assert!(
        total.kept > 1000 && total.fresh > 1000,
        "too little load: {total}"
    );
}

fn replace_behind_haproxy(image: &Image, drains: u32) -> Tally {
    let network = Network::create();
    let instances = [1, 2].map(|number| {
        let options = [
            format!("--network={}", network.name),
            format!("--network-alias=service-{number}"),
            format!("--ip={}", network.ip(10 + number)),
            "--env=ADDRESS=0.0.0.0:8080".to_owned(),
        ];
        let options = options.each_ref().map(String::as_str);
        let container = Container::run(&image.tag, &options, &["serve"]);
        container.turns("healthy");
        container
    });
    let config = config("proxies/haproxy.cfg");
    let words = ["haproxy", "-f", "/etc/config.cfg"];
    let proxy = Container::tool(&network, &words, ("/etc/config.cfg", &config));
    let address = proxy.address(8000);
    eventually("the proxy forwards requests", TIMEOUT, || {
        (get(address, "/").0 == 200).then_some(())
    });

    let load = Load::start(address, 5);
    for drain in 0..drains {
        let instance = &instances[drain as usize % 2];
        assert!(instance.stopping().wait().expect("docker").success());
        assert_eq!(instance.state()["ExitCode"], 0, "{:#}", instance.state());
        instance.start();
        eventually("the instance is ready", TIMEOUT, || {
            (get(instance.address(8080), "/health/ready").0 == 200).then_some(())
        });
        // HAProxy needs this time to notice that the instance is ready. If the other instance were
        // stopped earlier, HAProxy would have no ready instance.
        thread::sleep(Duration::from_secs(3));
    }
    load.stop()
}
