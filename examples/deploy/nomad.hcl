# A service in Nomad, with its own service discovery.
#
#   nomad job run nomad.hcl
#
# HTTP checks, because in script checks exit code 1 is only a warning.

job "my-service" {
  group "my-service" {
    count = 3

    network {
      port "http" {
        to = 8080
      }
    }

    update {
      # All new allocations are healthy before an old one is told to stop: as many canaries as the group counts. With
      # fewer, the rest is replaced in place, each old one stopped first.
      canary       = 3
      max_parallel = 1
      auto_promote = true
      auto_revert  = true
      # Passing for this long counts as healthy: three rounds of the checks below.
      min_healthy_time = "15s"
      healthy_deadline = "2m"
    }

    service {
      name     = "my-service"
      port     = "http"
      provider = "nomad"

      # Traffic? An update waits for this. But Nomad's own service discovery lists an allocation whatever its checks
      # say: the proxy in front asks this route itself, or the provider is "consul", which leaves out what fails.
      check {
        name     = "ready"
        type     = "http"
        path     = "/health/ready"
        interval = "2s"
        # Above the 800 ms that checks are given.
        timeout = "1s"
      }

      # Restart? Only a broken process: after three failures in a row, as Nomad does not restart by itself.
      check {
        name     = "live"
        type     = "http"
        path     = "/health/live"
        interval = "5s"
        timeout  = "3s"

        check_restart {
          limit = 3
          # How long a start may take before failures count.
          grace = "30s"
        }
      }
    }

    task "my-service" {
      driver = "docker"

      # 5 s of drain, the longest request, and some to spare; then SIGKILL.
      kill_timeout = "15s"

      config {
        image           = "registry.example/my-service:1.4.2"
        ports           = ["http"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]

        # Nomad asks; the image's HEALTHCHECK would ask once more, and nobody would listen.
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
