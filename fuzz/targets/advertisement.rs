//! What a service advertised: whatever a file holds, a probe takes what can be asked, or nothing.
#![no_main]

mod shared;

use libfuzzer_sys::fuzz_target;
use lifesign::fuzzing;
use shared::assert_request;

fuzz_target!(|text: &str| {
    let Some((endpoint, paths)) = fuzzing::advertised(text) else {
        return;
    };
    let lines = text.strip_suffix('\n').expect("a line has an end");
    let lines: Vec<_> = lines.split('\n').collect();
    let [format, url, ref routes @ ..] = lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(format, "lifesign 1");
    assert_eq!(fuzzing::endpoint(url), Some((endpoint.clone(), None)));
    assert_eq!(routes, paths);

    let again = endpoint.to_string();
    assert_eq!(fuzzing::endpoint(&again), Some((endpoint.clone(), None)));
    for path in &paths {
        assert_request(&fuzzing::request(endpoint.clone(), path), Some(path));
    }
    // A service that listens there advertises the same.
    let written =
        fuzzing::advertise(endpoint.clone(), paths.clone()).expect("it was accepted before");
    assert_eq!(fuzzing::advertised(&written), Some((endpoint, paths)));
});
