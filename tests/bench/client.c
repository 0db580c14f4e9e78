/* Times one kind of system call sequence on a path; prints nanoseconds per round.
   usage: client orc|echo|stat|list PATH ROUNDS [TEXT] */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void open_read_close(const char *path)
{
	char text[4096];
	int fd = open(path, O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text)) < 0)
		fail(path);
	close(fd);
}

static void echo(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail(path);
	close(fd);
}

static void get_status(const char *path)
{
	struct stat status;

	if (stat(path, &status))
		fail(path);
}

/* What a long listing asks of the kernel: the names, and the status of each. */
static void list(const char *path)
{
	struct stat status;
	struct dirent *entry;
	DIR *directory = opendir(path);

	if (!directory)
		fail(path);
	while ((entry = readdir(directory)))
		if (fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW))
			fail(entry->d_name);
	closedir(directory);
}

int main(int argc, char **argv)
{
	struct timespec start, end;

	if (argc < 4)
		return 2;
	long rounds = atol(argv[3]);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (long i = 0; i < rounds; i++) {
		if (!strcmp(argv[1], "orc"))
			open_read_close(argv[2]);
		else if (!strcmp(argv[1], "echo"))
			echo(argv[2], argv[4]);
		else if (!strcmp(argv[1], "list"))
			list(argv[2]);
		else if (!strcmp(argv[1], "stat"))
			get_status(argv[2]);
		else
			return 2;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%f\n", ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / rounds);
	return 0;
}
