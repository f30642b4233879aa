# A service in Nomad, with Nomad's own service discovery.
#
#   nomad job run nomad.hcl
#
# The checks use HTTP. Exit code 1 of a script check, such as the probe's, would only be a warning.

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
      # This is the time of three rounds of the checks below.
      min_healthy_time = "15s"
      healthy_deadline = "2m"
    }

    service {
      name     = "my-service"
      port     = "http"
      provider = "nomad"

      # This check decides whether an allocation gets traffic, and an update waits for it. Nomad's service discovery
      # also lists allocations whose checks fail. Let the proxy probe this route too, or use the provider "consul",
      # which leaves them out.
      check {
        name     = "ready"
        type     = "http"
        path     = "/health/ready"
        interval = "2s"
        # This is more than the deadline of the service's checks, which is 800 ms.
        timeout = "1s"
      }

      # This restarts a broken process after three failures in a row, and nothing else.
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
