# A service in Nomad, with Nomad's own service discovery.
#
#   nomad job run nomad.hcl
#
# The checks use HTTP, because Nomad takes exit code 1 of a script check, which is the probe's, for a warning.

job "my-service" {
  group "my-service" {
    count = 3

    network {
      port "http" {
        to = 8080
      }
    }

    update {
      # There are as many canaries as allocations, so all new allocations are healthy before an old one is stopped. With
      # fewer canaries, Nomad replaces the rest in place and stops each old allocation first.
      canary       = 3
      max_parallel = 1
      auto_promote = true
      auto_revert  = true
      # Three intervals of the check `live` below.
      min_healthy_time = "15s"
      healthy_deadline = "2m"
    }

    service {
      name     = "my-service"
      port     = "http"
      provider = "nomad"

      # This check tells whether an allocation can serve traffic, and an update waits for it. Nomad's service discovery
      # lists allocations even if their checks fail. Let the proxy probe this route too, or use the provider "consul",
      # which leaves such allocations out.
      check {
        name     = "ready"
        type     = "http"
        path     = "/health/ready"
        interval = "2s"
        # This is more than 800 ms, the deadline of the service's checks.
        timeout = "1s"
      }

      # This restarts only a broken process, after three failures in a row.
      check {
        name     = "live"
        type     = "http"
        path     = "/health/live"
        interval = "5s"
        timeout  = "3s"

        check_restart {
          limit = 3
          # Nomad ignores failures for this long after the start.
          grace = "30s"
        }
      }
    }

    task "my-service" {
      driver = "docker"

      # The sum of 5 s of drain, the longest request, and a margin. Nomad sends SIGKILL after this time.
      kill_timeout = "15s"

      config {
        image           = "registry.example/my-service:1.4.2"
        ports           = ["http"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]

        # Nomad sends its own checks and ignores the result of the image's HEALTHCHECK.
        healthchecks {
          disable = true
        }
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
