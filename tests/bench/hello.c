/* The smallest libfuse 3 server with one attribute-like file, as a measure for ours. */
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fuse.h>
#include <string.h>
#include <sys/stat.h>

static const char text[] = "1500\n";

static void *start(struct fuse_conn_info *connection, struct fuse_config *config)
{
	(void)connection;
	config->entry_timeout = config->attr_timeout = config->negative_timeout = 3600;
	config->direct_io = 1;
	return NULL;
}

static int get_attributes(const char *path, struct stat *status, struct fuse_file_info *file)
{
	(void)file;
	if (!strcmp(path, "/")) {
		status->st_mode = S_IFDIR | 0755;
		status->st_nlink = 2;
		return 0;
	}
	if (strcmp(path, "/hello"))
		return -ENOENT;
	status->st_mode = S_IFREG | 0444;
	status->st_nlink = 1;
	status->st_size = 4096;
	return 0;
}

static int open_file(const char *path, struct fuse_file_info *file)
{
	(void)file;
	return strcmp(path, "/hello") ? -ENOENT : 0;
}

static int read_file(const char *path, char *buffer, size_t size, off_t offset,
		     struct fuse_file_info *file)
{
	size_t length = sizeof(text) - 1;

	(void)path;
	(void)file;
	if ((size_t)offset >= length)
		return 0;
	if (size > length - offset)
		size = length - offset;
	memcpy(buffer, text + offset, size);
	return size;
}

static const struct fuse_operations operations = {
	.init = start, .getattr = get_attributes, .open = open_file, .read = read_file,
};

int main(int argc, char **argv)
{
	return fuse_main(argc, argv, &operations, NULL);
}
