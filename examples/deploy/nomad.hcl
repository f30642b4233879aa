# A service in Nomad, with its own service discovery.
#
#   nomad job run nomad.hcl
#
# The checks use HTTP, because exit code 1 of a script check is only a warning.

job "my-service" {
  group "my-service" {
    count = 3

    network {
      port "http" {
        to = 8080
      }
    }

    update {
      # As many canaries as `count`, so that all new allocations are healthy before an old one is stopped. With fewer, Nomad
      # replaces the rest in place and stops each old allocation first.
      canary       = 3
      max_parallel = 1
      auto_promote = true
      auto_revert  = true
      # Three rounds of the checks below.
      min_healthy_time = "15s"
      healthy_deadline = "2m"
    }

    service {
      name     = "my-service"
      port     = "http"
      provider = "nomad"

      # Decides about traffic, and an update waits for it. Nomad's service discovery also lists allocations whose checks
      # fail. Let the proxy probe this route too, or use the provider "consul", which leaves them out.
      check {
        name     = "ready"
        type     = "http"
        path     = "/health/ready"
        interval = "2s"
        # Above the 800 ms that checks have.
        timeout = "1s"
      }

      # Restarts only a broken process, after three failures in a row.
      check {
        name     = "live"
        type     = "http"
        path     = "/health/live"
        interval = "5s"
        timeout  = "3s"

        check_restart {
          limit = 3
          # Failures are ignored for this long after the start.
          grace = "30s"
        }
      }
    }

    task "my-service" {
      driver = "docker"

      # 5 s of drain, the longest request, and a margin. After that Nomad sends SIGKILL.
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
