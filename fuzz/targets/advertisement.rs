//! Parses an advertisement. The probe must accept exactly the texts that a service writes.
#![no_main]

mod shared;

use libfuzzer_sys::fuzz_target;
use lifesign::fuzzing;
use shared::assert_request;

fuzz_target!(|text: &str| {
    let Some((endpoint, paths, instance, written)) = fuzzing::advertised(text) else {
        return;
    };
    let lines = text
        .strip_suffix('\n')
        .expect("the text ends with a line feed");
    let lines: Vec<_> = lines.split('\n').collect();
    let [format, url, ref routes @ .., millis, number] = lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(format, "lifesign 1");
    assert_eq!(fuzzing::endpoint(url), Some((endpoint.clone(), None)));
    assert_eq!(routes, paths);
    assert_eq!(number, instance);
    assert!(millis.parse::<u32>().is_ok(), "{millis}");

    let again = endpoint.to_string();
    assert_eq!(fuzzing::endpoint(&again), Some((endpoint.clone(), None)));
    for path in paths {
        assert_request(&fuzzing::request(endpoint.clone(), path), Some(path));
    }
    // Writing the parsed fields again must give a text that parses to the same fields.
    let written = written.expect("the text was parsed");
    let (endpoint_again, paths_again, instance_again, written_again) =
        fuzzing::advertised(&written).expect("the text was written");
    assert_eq!(
        (endpoint_again, paths_again, instance_again),
        (endpoint, paths, instance)
    );
    assert_eq!(written_again.ok().as_ref(), Some(&written));
});
