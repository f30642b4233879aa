vcl 4.1;
import directors;

probe ready {
    .url = "/health/ready";
    .interval = 1s;
    .timeout = 1s;
    # Two failures take an instance out, and two successes bring it back.
    .window = 3;
    .threshold = 2;
}
backend service_1 { .host = "service-1"; .port = "8080"; .probe = ready; }
backend service_2 { .host = "service-2"; .port = "8080"; .probe = ready; }

sub vcl_init {
    new my_service = directors.round_robin();
    my_service.add_backend(service_1);
    my_service.add_backend(service_2);
}
sub vcl_recv {
    set req.backend_hint = my_service.backend();
    # The responses of this service depend on the visitor, so they are not cached.
    return (pass);
}
