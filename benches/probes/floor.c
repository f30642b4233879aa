/* floor PORT: the smallest possible probe. It has no deadline, and checks nothing but the status code. */
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const char request[] = "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";

int main(int argc, char **argv)
{
    if (argc != 2)
        return 1;
    struct sockaddr_in to = {
        .sin_family = AF_INET,
        .sin_port = htons(atoi(argv[1])),
        .sin_addr = {htonl(INADDR_LOOPBACK)},
    };
    char response[2048];
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (struct sockaddr *)&to, sizeof to) < 0)
        return 1;
    if (write(s, request, sizeof request - 1) < 0)
        return 1;
    if (read(s, response, sizeof response) < 12)
        return 1;
    return response[9] != '2';
}
