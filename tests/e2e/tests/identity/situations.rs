//! The table of situations. "api" is the probed service, and "vpn" is another service.
//!
//! Both services listen on port 8080 unless `ADDRESS` is set. If a row has containers `a` and `b`,
//! they share namespaces.

/// A situation, and what the probes in its script print.
pub(crate) struct Situation {
    pub(crate) name: &'static str,
    pub(crate) script: &'static str,
    pub(crate) expected: &'static [Verdict],
}

/// A probe's exit code and the line that it prints.
pub(crate) type Verdict = (u8, &'static str);

const HEALTHY: Verdict = (0, "healthy: pass");

const UNREADY: Verdict = (
    1,
    "unhealthy: 503 fail: starting: set_ready() has not been called yet",
);

const NOT_UP: Verdict = (
    1,
    "unhealthy: \"api\" advertises no address in this container: the service has not started or \
     has ended, cannot write to /dev/shm, or does not call serve, listen or advertise",
);

/// The probed service is not advertised, but another service of the container is.
const ONLY_VPN: Verdict = (
    1,
    "unhealthy: \"api\" advertises no address in this container (only \"vpn\" does): the service \
     has not started or has ended, cannot write to /dev/shm, or does not call serve, listen or \
     advertise",
);

/// Another service responds at the advertised port.
const VPN: Verdict = (1, "unhealthy: not \"api\": \"vpn\" responded with 200");

/// Another service, whose responses contain the status only, responds at the advertised port.
const HIDDEN: Verdict = (
    1,
    "unhealthy: not \"api\": another service responded with 200",
);

/// Another copy of the probed service responds.
const COPY: Verdict = (
    1,
    "unhealthy: not \"api\": another instance of it responded with 200",
);

/// A server that does not use lifesign responds.
const FOREIGN: Verdict = (
    1,
    "unhealthy: not \"api\": a server responded with 200, without Lifesign-Instance: pass the \
     whole URL to probe this path without it",
);

macro_rules! guessed {
    ($verdict:literal, $guess:literal, $why:literal) => {
        concat!($verdict, " (guessed", $guess, ": ", $why, ")")
    };
}

pub(crate) const SITUATIONS: &[Situation] = &[
    // Several containers share a network, as with `--network=container:…` or sidecars.
    Situation {
        name: "network shared, not started",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a -- sleep 600
            probe @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network shared, not started, PORT set",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=PORT=8080 -- sleep 600
            probe @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network shared, starting for 60 s",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=START=60 -- api
            probe @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network shared, starting for 60 s, PORT set",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=START=60 --env=PORT=8080 -- api
            probe @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network shared, the engine's health check",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=START=60 --health-cmd='api healthcheck' \
                --health-interval=100ms --health-retries=1 -- api
            engine @b unhealthy",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network shared, killed and restarted by a supervisor",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=ADDRESS=0.0.0.0:8081 -- supervise; up @b
            probe @b api healthcheck
            kill_api @b
            probe @b api healthcheck
            docker exec @b touch /go; up @b 2
            probe @b api healthcheck",
        expected: &[HEALTHY, NOT_UP, HEALTHY],
    },
    Situation {
        name: "network shared, both want port 8080",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a -- supervise
            eventually logs @b 'in use'
            probe @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network shared, vpn takes the port of the killed service",
        script: "run @b --network=none -- supervise; up @b
            kill_api @b
            run @a --network=container:@b -- vpn; up @a
            probe @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network shared, restart of the other service",
        script: "run @b --network=none --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            run @a --network=container:@b -- vpn; up @a
            docker restart --time=0 @a >/dev/null
            probe @b api healthcheck
            up @a 2
            probe @b api healthcheck",
        expected: &[HEALTHY, HEALTHY],
    },
    Situation {
        name: "network shared, its owner restarted, and its namespace replaced",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            docker restart --time=0 @a >/dev/null; up @a 2
            probe @b api healthcheck
            docker restart --time=0 @b >/dev/null; up @b 2
            probe @b api healthcheck",
        expected: &[HEALTHY, HEALTHY],
    },
    Situation {
        name: "network shared, the other container paused",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            docker pause @a >/dev/null
            probe @b api healthcheck
            probe @b api healthcheck --timeout=200ms http://127.0.0.1:8080
            docker unpause @a >/dev/null
            probe @b api healthcheck http://127.0.0.1:8080",
        expected: &[
            HEALTHY,
            (1, "unhealthy: no response within 200ms"),
            HEALTHY,
        ],
    },
    // Containers that share an IPC or PID namespace.
    Situation {
        name: "network and ipc shared, not started",
        script: "run @a --network=none --ipc=shareable -- vpn; up @a
            run @b --network=container:@a --ipc=container:@a -- sleep 600
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network and pid shared, not started",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --pid=container:@a -- sleep 600
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "network, ipc and pid shared, not started, then up",
        script: "run @a --network=none --ipc=shareable -- vpn; up @a
            run @b --network=container:@a --ipc=container:@a --pid=container:@a \
                --env=ADDRESS=0.0.0.0:8081 -- supervise; up @b
            probe @b api healthcheck
            kill_api @b
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[HEALTHY, NOT_UP],
    },
    Situation {
        name: "ipc and pid shared, PORT is served by nobody",
        script: "run @a --ipc=shareable -- vpn; up @a
            run @b --ipc=container:@a --pid=container:@a --network=none -- sleep 600
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "two copies of one image, network shared, one down",
        script: "run @a --network=none -- api; up @a
            run @b --network=container:@a -- sleep 600
            probe @a api healthcheck
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[HEALTHY, NOT_UP],
    },
    Situation {
        name: "two copies of one image, network, ipc and pid shared, one down",
        script: "run @a --network=none --ipc=shareable -- api; up @a
            run @b --network=container:@a --ipc=container:@a --pid=container:@a -- sleep 600
            probe @a api healthcheck
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[HEALTHY, NOT_UP],
    },
    Situation {
        name: "two copies of one image, network and ipc shared, one unready",
        script: "run @a --network=none --ipc=shareable --env=STATE=unready -- api; up @a
            run @b --network=container:@a --ipc=container:@a --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            probe @a api healthcheck
            probe @b api healthcheck",
        expected: &[UNREADY, HEALTHY],
    },
    Situation {
        name: "one binary from a volume, network and ipc shared, one down",
        script: "as_volume @v
            run @a --network=none --ipc=shareable --volume=@v:/volume -- /volume/api; up @a
            run @b --network=container:@a --ipc=container:@a --volume=@v:/volume -- sleep 600
            probe @a /volume/api healthcheck
            probe --env=PORT=8080 @b /volume/api healthcheck",
        expected: &[HEALTHY, NOT_UP],
    },
    Situation {
        name: "pod: network and ipc of a pause container, both up, then one killed",
        script: "run @pause --network=none --ipc=shareable -- sleep 600
            run @a --network=container:@pause --ipc=container:@pause -- vpn
            run @b --network=container:@pause --ipc=container:@pause \
                --env=ADDRESS=0.0.0.0:8081 -- supervise
            up @a; up @b
            probe @a vpn healthcheck
            probe @b api healthcheck
            kill_api @b
            probe --env=PORT=8080 @b api healthcheck
            probe @a vpn healthcheck",
        expected: &[HEALTHY, HEALTHY, NOT_UP, HEALTHY],
    },
    Situation {
        name: "pod: container created again, starting for 60 s",
        script: "run @pause --network=none --ipc=shareable -- sleep 600
            run @a --network=container:@pause --ipc=container:@pause -- vpn; up @a
            run @b --network=container:@pause --ipc=container:@pause \
                --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            docker rm --force @b >$SCRATCH
            run @c --network=container:@pause --ipc=container:@pause \
                --env=START=60 --env=PORT=8080 -- api
            probe @c api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "pod of Podman, not started",
        script: "docker run --detach --privileged --init --label=$LABEL --name=@p $PODMAN >$SCRATCH
            docker save $IMAGE | docker exec --interactive @p podman load --quiet >$SCRATCH
            docker exec @p podman pod create --name=pod --network=none >$SCRATCH
            docker exec @p podman run --detach --pod=pod --name=a $IMAGE vpn >$SCRATCH
            docker exec @p podman run --detach --pod=pod --name=b $IMAGE sleep 600 >$SCRATCH
            eventually docker exec @p sh -c 'podman logs a 2>&1 | grep listening'
            probe @p podman exec a vpn healthcheck
            probe @p podman exec --env=PORT=8080 b api healthcheck",
        expected: &[HEALTHY, NOT_UP],
    },
    Situation {
        name: "Compose's network_mode: service, not started",
        script: "docker compose --progress=quiet --project-name=@compose --file=- up --detach <<END
            services:
              a: {image: $IMAGE, container_name: @a, labels: [$LABEL], network_mode: none, command: vpn}
              b: {image: $IMAGE, container_name: @b, labels: [$LABEL], network_mode: 'service:a',
                  environment: [PORT=8080], command: sleep 600}
END
            up @a
            probe @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "the host's network and ipc, not started",
        script: "run @a --network=host --ipc=host --env=ADDRESS=127.0.0.1:0 -- vpn; up @a
            run @b --network=host --ipc=host -- sleep 600
            probe --env=PORT=$(port @a) @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "the host's network, ipc and pid, two copies, one unready",
        script: "run @a --network=host --ipc=host --pid=host --env=ADDRESS=127.0.0.1:0 \
                --env=STATE=unready -- api; up @a
            run @b --network=host --ipc=host --pid=host --env=ADDRESS=127.0.0.1:0 -- api; up @b
            probe @a api healthcheck
            probe @b api healthcheck",
        expected: &[UNREADY, HEALTHY],
    },
    // One container runs several services.
    Situation {
        name: "two services in one container, one killed",
        script: "run @b --network=none --env=PORT=8080 -- sh -c \
                'vpn & ADDRESS=0.0.0.0:8081 api & wait'; up @b 2
            probe @b api healthcheck
            kill_api @b
            probe @b api healthcheck
            probe @b vpn healthcheck",
        expected: &[HEALTHY, ONLY_VPN, HEALTHY],
    },
    Situation {
        name: "two services in one container, one unready",
        script: "run @b --network=none --env=PORT=8080 -- sh -c \
                'vpn & ADDRESS=0.0.0.0:8081 STATE=unready api & wait'; up @b 2
            probe @b api healthcheck
            probe @b vpn healthcheck",
        expected: &[UNREADY, HEALTHY],
    },
    // As documented, a probe finds only one process of a binary in a container. Here, that is the
    // youngest.
    Situation {
        name: "two copies in one container, the younger unready, then killed",
        script: "run @b --network=none -- supervise; up @b
            docker exec --detach --env=ADDRESS=0.0.0.0:8081 --env=STATE=unready @b \
                sh -c 'api >/proc/1/fd/1'; up @b 2
            probe @b api healthcheck
            docker exec @b sh -c 'kill -9 $(pidof api | cut -d\" \" -f1)'
            eventually is_single @b
            probe @b api healthcheck",
        expected: &[UNREADY, HEALTHY],
    },
    Situation {
        name: "a library with another name than its binary",
        script: "run @b --network=none --env=NAME=library --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "a library with another name, not PID 1",
        script: "run @b --network=none --env=NAME=library --env=ADDRESS=0.0.0.0:8081 -- supervise; up @b
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "a library with another name, vpn takes the port of the killed service",
        script: "run @b --network=none --env=NAME=library -- supervise; up @b
            kill_api @b
            run @a --network=container:@b -- vpn; up @a
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[NOT_UP],
    },
    Situation {
        name: "probe by a copy of the executable",
        script: "run @b --network=none --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            docker exec @b cp /bin/api /tmp/api
            probe @b /tmp/api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "two executables of one name, the own one unready",
        script: "run @b --network=none -- sh -c 'mkdir /opt && cp /bin/api /opt/api
                ADDRESS=0.0.0.0:8081 STATE=unready /opt/api & wait'; up @b
            docker exec --detach @b sh -c 'api >/proc/1/fd/1'; up @b 2
            probe @b /opt/api healthcheck
            probe @b api healthcheck",
        expected: &[UNREADY, HEALTHY],
    },
    Situation {
        name: "two executables of one name, one killed",
        script: "run @b --network=none -- supervise; up @b
            docker exec @b cp /bin/api /tmp/api
            docker exec --detach --env=ADDRESS=0.0.0.0:8081 @b sh -c '/tmp/api >/proc/1/fd/1'; up @b 2
            docker exec @b sh -c 'kill -9 $(pidof api | cut -d\" \" -f1)'
            eventually is_single @b
            probe @b api healthcheck
            probe @b /tmp/api healthcheck",
        expected: &[HEALTHY, HEALTHY],
    },
    Situation {
        name: "the executable is replaced while it runs",
        script: "run @b --network=none --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            docker exec @b sh -c 'cp /bin/api /bin/new && mv /bin/new /bin/api'
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "restarted by a supervisor under --init",
        script: "run @b --network=none --init -- supervise; up @b
            probe @b api healthcheck
            kill_api @b
            probe @b api healthcheck
            docker exec @b touch /go; up @b 2
            probe @b api healthcheck",
        expected: &[HEALTHY, NOT_UP, HEALTHY],
    },
    Situation {
        name: "restarted by the engine",
        script: "run @b --network=none -- api; up @b
            docker restart --time=0 @b >/dev/null; up @b 2
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "stopped and continued",
        script: "run @b --network=none -- supervise; up @b
            docker exec @b killall -STOP api
            probe @b api healthcheck --timeout=1s
            docker exec @b killall -CONT api
            probe @b api healthcheck",
        expected: &[
            (1, "unhealthy: no response within 1s"),
            HEALTHY,
        ],
    },
    // api has a network namespace of its own, so another service can have the advertised address.
    // api is not PID 1, so that `docker exec` enters vpn's network namespace.
    Situation {
        name: "vpn at the advertised address",
        script: "run @b --network=none --cap-add=SYS_ADMIN -- sh -c 'vpn & unshare -n api & wait'; up @b 2
            probe @b api healthcheck",
        expected: &[VPN],
    },
    Situation {
        name: "vpn at the advertised address, with the status only",
        script: "run @b --network=none --cap-add=SYS_ADMIN -- sh -c \
                'DETAILS=hidden vpn & unshare -n api & wait'; up @b 2
            probe @b api healthcheck",
        expected: &[HIDDEN],
    },
    Situation {
        name: "vpn at the advertised address of a service with the status only",
        script: "run @b --network=none --cap-add=SYS_ADMIN -- sh -c \
                'vpn & DETAILS=hidden unshare -n api & wait'; up @b 2
            probe @b api healthcheck",
        expected: &[VPN],
    },
    Situation {
        name: "vpn, unready, at the advertised address",
        script: "run @b --network=none --cap-add=SYS_ADMIN -- sh -c \
                'STATE=unready vpn & unshare -n api & wait'; up @b 2
            probe @b api healthcheck",
        expected: &[(
            1,
            "unhealthy: not \"api\": \"vpn\" responded with 503",
        )],
    },
    Situation {
        name: "another copy at the advertised address",
        script: "run @a --network=none -- api; up @a
            run @b --network=container:@a --cap-add=SYS_ADMIN -- sh -c 'unshare -n api & wait'; up @b
            probe @b api healthcheck",
        expected: &[COPY],
    },
    Situation {
        name: "a server without lifesign at the advertised address",
        script: "run @b --network=none --cap-add=SYS_ADMIN -- sh -c \
                'mkdir -p /www/health && echo up >/www/health/index.html
                 httpd -p 127.0.0.1:8080 -h /www; unshare -n api & wait'; up @b
            probe @b api healthcheck /health/index.html",
        expected: &[FOREIGN],
    },
    Situation {
        name: "nobody at the advertised address",
        script: "run @b --network=none --cap-add=SYS_ADMIN -- sh -c 'unshare -n api & wait'; up @b
            probe @b api healthcheck",
        expected: &[(
            1,
            "unhealthy: connect to 127.0.0.1:8080: connection refused",
        )],
    },
    Situation {
        name: "the status only",
        script: "run @b --network=none --env=DETAILS=hidden -- api; up @b
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    // Services listen on IPv4, on IPv6, or on both.
    Situation {
        name: "[::] only for IPv6 and unready, vpn on 127.0.0.1",
        script: "run @a --network=none --sysctl=net.ipv6.bindv6only=1 \
                --env=ADDRESS=127.0.0.1:8080 -- vpn; up @a
            run @b --network=container:@a --env=ADDRESS=[::]:8080 --env=STATE=unready -- api; up @b
            probe @b api healthcheck",
        expected: &[UNREADY],
    },
    Situation {
        name: "[::] only for IPv6, vpn on 127.0.0.1 and unready",
        script: "run @a --network=none --sysctl=net.ipv6.bindv6only=1 \
                --env=ADDRESS=127.0.0.1:8080 --env=STATE=unready -- vpn; up @a
            run @b --network=container:@a --env=ADDRESS=[::]:8080 -- api; up @b
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "0.0.0.0 and unready, vpn on [::1]",
        script: "run @a --network=none --env=ADDRESS=[::1]:8080 -- vpn; up @a
            run @b --network=container:@a --env=STATE=unready -- api; up @b
            probe @b api healthcheck",
        expected: &[UNREADY],
    },
    Situation {
        name: "[::] where ::1 does not exist",
        script: "run @b --network=none --cap-add=NET_ADMIN --env=ADDRESS=[::]:8080 -- api; up @b
            docker exec @b ip address del ::1/128 dev lo
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    // The service cannot advertise its address, so the probe guesses one.
    Situation {
        name: "no /dev/shm",
        script: "run @b --network=none --ipc=none --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            probe --env=PORT=8081 @b api healthcheck
            probe @b api healthcheck",
        expected: &[
            (0, guessed!("healthy: pass", " from PORT", "there is no /dev/shm")),
            (
                1,
                guessed!(
                    "unhealthy: connect to 127.0.0.1:8080: connection refused",
                    ", set PORT or LIFESIGN_URL",
                    "there is no /dev/shm"
                ),
            ),
        ],
    },
    Situation {
        name: "no /dev/shm, PORT is vpn's",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --ipc=none -- sleep 600
            probe --env=PORT=8080 @b api healthcheck
            probe @b api healthcheck",
        expected: &[
            (1, guessed!("unhealthy: not \"api\": \"vpn\" responded with 200", " from PORT", "there is no /dev/shm")),
            (1, guessed!("unhealthy: not \"api\": \"vpn\" responded with 200", ", set PORT or LIFESIGN_URL", "there is no /dev/shm")),
        ],
    },
    Situation {
        name: "no /dev/shm, another copy on PORT",
        script: "run @a --network=none -- api; up @a
            run @b --network=container:@a --ipc=none -- sleep 600
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[
            (1, guessed!("unhealthy: not \"api\": another instance of it responded with 200", " from PORT", "there is no /dev/shm")),
        ],
    },
    Situation {
        name: "no /dev/shm, the same binary of a volume on PORT",
        script: "as_volume @v
            run @a --network=none --volume=@v:/volume -- /volume/api; up @a
            run @b --network=container:@a --ipc=none --volume=@v:/volume -- sleep 600
            probe --env=PORT=8080 @b /volume/api healthcheck",
        expected: &[
            (1, guessed!("unhealthy: not \"api\": another instance of it responded with 200", " from PORT", "there is no /dev/shm")),
        ],
    },
    Situation {
        name: "no /dev/shm, the status only, own and vpn's port",
        script: "run @a --network=none --env=DETAILS=hidden -- vpn; up @a
            run @b --network=container:@a --ipc=none --env=DETAILS=hidden \
                --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            probe --env=PORT=8081 @b api healthcheck
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[
            (0, guessed!("healthy: pass", " from PORT", "there is no /dev/shm")),
            (1, guessed!("unhealthy: not \"api\": another service responded with 200", " from PORT", "there is no /dev/shm")),
        ],
    },
    Situation {
        name: "read-only /dev/shm, own and vpn's port",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --tmpfs=/dev/shm:ro --env=ADDRESS=0.0.0.0:8081 -- api; up @b
            probe --env=PORT=8081 @b api healthcheck
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[
            (0, guessed!("healthy: pass", " from PORT", "/dev/shm is read-only")),
            (1, guessed!("unhealthy: not \"api\": \"vpn\" responded with 200", " from PORT", "/dev/shm is read-only")),
        ],
    },
    Situation {
        name: "no /dev/shm, the executable replaced while it runs",
        script: "run @b --network=none --ipc=none -- api; up @b
            docker exec @b sh -c 'cp /bin/api /bin/new && mv /bin/new /bin/api'
            probe --env=PORT=8080 @b api healthcheck",
        expected: &[(
            1,
            guessed!(
                "unhealthy: not \"api\": another instance of it responded with 200",
                " from PORT",
                "there is no /dev/shm"
            ),
        )],
    },
    // A URL in LIFESIGN_URL or an argument is probed, whichever service responds. HEALTHCHECK_URL
    // is ignored.
    Situation {
        name: "LIFESIGN_URL is vpn's",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a -- sleep 600
            probe --env=LIFESIGN_URL=http://127.0.0.1:8080 @b api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "an argument is vpn's",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a -- sleep 600
            probe @b api healthcheck http://127.0.0.1:8080/health",
        expected: &[HEALTHY],
    },
    Situation {
        name: "HEALTHCHECK_URL is that of a monitoring service",
        script: "run @b --network=none --env=HEALTHCHECK_URL=https://hc-ping.com/your-uuid-here -- api; up @b
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    // The service and the probe run as different users.
    Situation {
        name: "probe of another user",
        script: "run @b --network=none -- api; up @b
            probe --user=12345 @b api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "service of another user, probe of root",
        script: "run @b --network=none --user=12345 -- api; up @b
            probe --user=0 @b api healthcheck",
        expected: &[HEALTHY],
    },
    Situation {
        name: "user dropped by the entrypoint",
        script: "run @b --network=none -- su -s /bin/api nobody; up @b
            probe @b api healthcheck
            probe --user=nobody @b api healthcheck",
        expected: &[HEALTHY, HEALTHY],
    },
    Situation {
        name: "user dropped after advertising",
        script: "run @b --network=none --user=12345 -- api; up @b
            docker exec --user=0 @b sh -c 'chown 0 /dev/shm/lifesign.*'
            probe @b api healthcheck
            probe --user=0 @b api healthcheck",
        expected: &[HEALTHY, HEALTHY],
    },
    Situation {
        name: "no capabilities, read-only root, and a user without an account",
        script: "run @b --network=none --read-only --cap-drop=ALL \
                --security-opt=no-new-privileges --user=65532 -- api; up @b
            probe @b api healthcheck",
        expected: &[HEALTHY],
    },
    // The probe's access to the advertisements is restricted.
    Situation {
        name: "no file descriptor for the probe, PORT is vpn's",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=ADDRESS=0.0.0.0:8081 --env=PORT=8080 -- api; up @b
            probe @b sh -c 'ulimit -n 3; exec api healthcheck'",
        expected: &[(
            1,
            "unhealthy: cannot read /dev/shm: no file descriptors available",
        )],
    },
    Situation {
        name: "one file descriptor for the probe",
        script: "run @b --network=none --env=PORT=8080 -- supervise; up @b
            probe @b sh -c 'ulimit -n 4; exec api healthcheck'",
        expected: &[HEALTHY],
    },
    Situation {
        name: "no /proc, PORT is vpn's",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --cap-add=SYS_ADMIN --env=PORT=8080 -- sleep 600
            probe @b unshare -m sh -c 'umount -l /proc && exec api healthcheck'",
        expected: &[(
            1,
            "unhealthy: /proc does not tell the mount namespace, so no service can be recognized: \
             set LIFESIGN_URL",
        )],
    },
    Situation {
        name: "10,001 names in /dev/shm, PORT is vpn's",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=ADDRESS=0.0.0.0:8081 --env=PORT=8080 -- supervise; up @b
            docker exec @b sh -c 'cd /dev/shm && seq 10001 | xargs touch'
            probe @b api healthcheck",
        expected: &[(
            1,
            "unhealthy: cannot read /dev/shm: more than 10000 entries",
        )],
    },
    Situation {
        name: "/dev/shm cannot be listed by the probe's user, PORT is vpn's",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --env=ADDRESS=0.0.0.0:8081 --env=PORT=8080 -- supervise; up @b
            docker exec @b chmod 711 /dev/shm
            probe --user=12345 @b api healthcheck",
        expected: &[(
            1,
            "unhealthy: cannot read /dev/shm: permission denied",
        )],
    },
    Situation {
        name: "own mount namespace, like PrivateTmp, PORT is vpn's",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --cap-add=SYS_ADMIN \
                --env=ADDRESS=0.0.0.0:8081 --env=PORT=8080 -- sh -c 'unshare -m api & wait'; up @b
            probe @b api healthcheck",
        expected: &[NOT_UP],
    },
    // The service cannot write its advertisement.
    Situation {
        name: "/dev/shm is full, PORT is vpn's, then its own",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --shm-size=4k --env=ADDRESS=0.0.0.0:8081 --env=PORT=8080 -- \
                sh -c 'dd if=/dev/zero of=/dev/shm/x bs=4k count=1; exec api'; up @b
            probe @b api healthcheck
            probe --env=PORT=8081 @b api healthcheck",
        expected: &[
            (1, guessed!("unhealthy: not \"api\": \"vpn\" responded with 200", " from PORT", "/dev/shm is full")),
            (0, guessed!("healthy: pass", " from PORT", "/dev/shm is full")),
        ],
    },
    Situation {
        name: "/dev/shm belongs to root, PORT is vpn's, then its own",
        script: "run @a --network=none -- vpn; up @a
            run @b --network=container:@a --user=12345 --tmpfs=/dev/shm:mode=755 \
                --env=ADDRESS=0.0.0.0:8081 --env=PORT=8080 -- api; up @b
            probe @b api healthcheck
            probe --env=PORT=8081 @b api healthcheck",
        expected: &[
            (1, guessed!("unhealthy: not \"api\": \"vpn\" responded with 200", " from PORT", "/dev/shm is not writable")),
            (0, guessed!("healthy: pass", " from PORT", "/dev/shm is not writable")),
        ],
    },
];
