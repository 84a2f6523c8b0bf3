/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A helper for the tests of dm(4), for what sh(1) cannot do: requests of any
 * shape to the control node, a disk's ioctls, I/O whose result and buffer are
 * examined, and several processes at work on one device.
 *
 * Results go to standard output, errors as their names ("EINVAL"), and the exit
 * status is 1 then.  2 is a failure of the test itself.
 *
 * Property lists are written and read as text, which is what the kernel takes: so
 * a request may also be one that proplib(3) would not make.
 */

#include <sys/types.h>
#include <sys/param.h>
#include <sys/disklabel.h>
#include <sys/disk.h>
#include <sys/dkio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <sys/wait.h>

#include <uvm/uvm_extern.h>

#include <prop/plistref.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sha2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define	CONTROL		"/dev/mapper/control"
#define	DM_IOCTL	_IOWR(0xfd, 0, struct plistref)
#define	SECTOR		512
#define	TREE_BLOCK	4096
#define	BROKEN		2

static const struct {
	int	number;
	const char *name;
} errnos[] = {
	{ EPERM, "EPERM" }, { ENOENT, "ENOENT" }, { EINTR, "EINTR" },
	{ EIO, "EIO" }, { ENXIO, "ENXIO" }, { E2BIG, "E2BIG" },
	{ EBADF, "EBADF" }, { ENOMEM, "ENOMEM" }, { EACCES, "EACCES" },
	{ EFAULT, "EFAULT" }, { ENOTBLK, "ENOTBLK" }, { EBUSY, "EBUSY" },
	{ EEXIST, "EEXIST" }, { ENODEV, "ENODEV" }, { EINVAL, "EINVAL" },
	{ ENOTTY, "ENOTTY" }, { EFBIG, "EFBIG" }, { ENOSPC, "ENOSPC" },
	{ EROFS, "EROFS" }, { ENAMETOOLONG, "ENAMETOOLONG" },
	{ ELOOP, "ELOOP" }, { EOPNOTSUPP, "EOPNOTSUPP" },
	{ EAGAIN, "EAGAIN" }, { ENOTSUP, "ENOTSUP" },
};

static const char *
errname(int error)
{
	static char other[16];
	size_t i;

	for (i = 0; i < __arraycount(errnos); i++)
		if (errnos[i].number == error)
			return errnos[i].name;
	snprintf(other, sizeof(other), "errno%d", error);
	return other;
}

/* Tells why a call failed. */
static int
failed(void)
{

	printf("%s\n", errname(errno));
	return EXIT_FAILURE;
}

static uint64_t
number(const char *text)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno != 0 || end == text || *end != '\0')
		errx(BROKEN, "not a number: %s", text);
	return value;
}

/* A text that grows. */
struct text {
	char	*chars;
	size_t	length, room;
};

static void __printflike(2, 3)
add(struct text *t, const char *format, ...)
{
	va_list ap;
	int length;

	for (;;) {
		va_start(ap, format);
		length = vsnprintf(t->chars == NULL ? NULL :
		    t->chars + t->length, t->room - t->length, format, ap);
		va_end(ap);
		if (length < 0)
			err(BROKEN, "vsnprintf");
		if (t->chars != NULL && (size_t)length < t->room - t->length)
			break;
		t->room = t->room * 2 + (size_t)length + 256;
		if ((t->chars = realloc(t->chars, t->room)) == NULL)
			err(BROKEN, "realloc");
	}
	t->length += (size_t)length;
}

static void
add_string(struct text *t, const char *chars, size_t length)
{

	add(t, "<string>");
	for (; length > 0; chars++, length--)
		switch (*chars) {
		case '<':
			add(t, "&lt;");
			break;
		case '>':
			add(t, "&gt;");
			break;
		case '&':
			add(t, "&amp;");
			break;
		default:
			add(t, "%c", *chars);
			break;
		}
	add(t, "</string>\n");
}

/* "start length type params", as dmctl(8) reads them. */
static void
add_line(struct text *t, const char *line)
{
	static const char *const keys[] = { "start", "length", "type" };
	size_t i, length;

	add(t, "<dict>\n");
	for (i = 0; i < __arraycount(keys); i++) {
		length = strcspn(line, " ");
		add(t, "<key>%s</key>", keys[i]);
		if (i < 2)
			add(t, "<integer>%.*s</integer>\n", (int)length, line);
		else
			add_string(t, line, length);
		line += length + strspn(line + length, " ");
	}
	add(t, "<key>params</key>");
	add_string(t, line, strlen(line));
	add(t, "</dict>\n");
}

/* Writes a request from its description; `usage' says how that looks. */
static void
request(struct text *t, char **args, const char *version)
{
	struct text data = { NULL, 0, 0 };
	const char *value;
	size_t key;
	int has_data = 0, v[3];

	add(t, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	    "<!DOCTYPE plist PUBLIC \"-//Apple Computer//DTD PLIST 1.0//EN\" "
	    "\"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n"
	    "<plist version=\"1.0\">\n<dict>\n");
	if (sscanf(version, "%d.%d.%d", &v[0], &v[1], &v[2]) == 3)
		add(t, "<key>version</key><array><integer>%d</integer>"
		    "<integer>%d</integer><integer>%d</integer></array>\n",
		    v[0], v[1], v[2]);
	for (; *args != NULL; args++) {
		key = strcspn(*args, ":=");
		value = *args + key + strspn(*args + key, ":=");
		if (strcmp(*args, "data") == 0)
			has_data = 1;
		else if (strncmp(*args, "raw=", 4) == 0)
			add(t, "%s\n", value);
		else if (strncmp(*args, "word=", 5) == 0) {
			has_data = 1;
			add_string(&data, value, strlen(value));
		} else if (strncmp(*args, "line=", 5) == 0) {
			has_data = 1;
			add_line(&data, value);
		} else if ((*args)[key] == ':') {
			add(t, "<key>%.*s</key><integer>%s</integer>\n",
			    (int)key, *args, value);
		} else if ((*args)[key] == '=') {
			add(t, "<key>%.*s</key>", (int)key, *args);
			add_string(t, value, strlen(value));
		} else
			errx(BROKEN, "what is %s?", *args);
	}
	if (has_data)
		add(t, "<key>cmd_data</key><array>\n%s</array>\n",
		    data.chars == NULL ? "" : data.chars);
	add(t, "</dict>\n</plist>\n");
	free(data.chars);
}

/* The text between the first > and the next < of a line of a reply. */
static int
content(const char *line, size_t length, const char **from)
{
	const char *start = memchr(line, '>', length), *end;

	if (start == NULL)
		return 0;
	start++;
	end = memchr(start, '<', length - (size_t)(start - line));
	*from = start;
	return end == NULL ? 0 : (int)(end - start);
}

/*
 * Prints a reply, a value on each line: "minor=3", "flags=0x14", and of
 * cmd_data's first line "cmd_data.0.type=linear".
 */
static void
print(const char *reply)
{
	enum { DEEP = 24 };
	struct { char key[64]; int at; } level[DEEP];
	const char *line, *end, *text = "";
	int depth = -1, i, length;

	for (line = reply; (end = strchr(line, '\n')) != NULL; line = end + 1) {
		line += strspn(line, "\t ");
		length = content(line, (size_t)(end - line), &text);
		if (strncmp(line, "<dict>", 6) == 0 ||
		    strncmp(line, "<array>", 7) == 0) {
			if (++depth >= DEEP)
				errx(BROKEN, "a reply too deep");
			level[depth].key[0] = '\0';
			level[depth].at = line[1] == 'a' ? 0 : -1;
			continue;
		}
		if (strncmp(line, "</dict>", 7) == 0 ||
		    strncmp(line, "</array>", 8) == 0) {
			if (--depth >= 0 && level[depth].at >= 0)
				level[depth].at++;
			continue;
		}
		if (strncmp(line, "<key>", 5) == 0) {
			snprintf(level[depth].key, sizeof(level[depth].key),
			    "%.*s", length, text);
			continue;
		}
		if (depth < 0 || line[0] != '<' || line[1] == '/' ||
		    strncmp(line, "<plist", 6) == 0)
			continue;
		if (strncmp(line, "<dict/>", 7) != 0 &&
		    strncmp(line, "<array/>", 8) != 0) {
			for (i = 0; i <= depth; i++)
				if (level[i].at >= 0)
					printf(".%d", level[i].at);
				else
					printf("%s%s", i > 0 ? "." : "",
					    level[i].key);
			printf("=%.*s\n", length, text);
		}
		if (level[depth].at >= 0)
			level[depth].at++;
	}
}

/* Sends a request `times' times; the last reply is printed. */
static int
send(int fd, const char *xml, unsigned int times, int quiet)
{
	struct plistref ref;
	char *reply;

	for (; times > 0; times--) {
		memset(&ref, 0, sizeof(ref));
		ref.pref_plist = __UNCONST(xml);
		ref.pref_len = strlen(xml) + 1;
		if (ioctl(fd, DM_IOCTL, &ref) == -1)
			return errno;
		reply = ref.pref_plist;
		if (times == 1 && !quiet)
			print(reply);
		if (reply != xml && munmap(reply, ref.pref_len) == -1)
			err(BROKEN, "munmap");
	}
	return 0;
}

/* send() of a request that is made on the spot, with nothing printed. */
static int
tell(int fd, const char *command, const char *name, const char *line)
{
	struct text t = { NULL, 0, 0 };
	char command_arg[64], name_arg[256], line_arg[2048];
	char *args[] = { command_arg, name_arg, NULL, NULL };
	int error;

	snprintf(command_arg, sizeof(command_arg), "command=%s", command);
	snprintf(name_arg, sizeof(name_arg), "name=%s", name);
	if (line != NULL) {
		snprintf(line_arg, sizeof(line_arg), "line=%s", line);
		args[2] = line_arg;
	}
	request(&t, args, "4.0.0");
	error = send(fd, t.chars, 1, 1);
	free(t.chars);
	return error;
}

static int
open_node(const char *path, const char *mode)
{

	return open(path, *mode == 'r' ? O_RDONLY : O_RDWR);
}

static int
do_ioctl(int argc, char **argv)
{
	const char *node = CONTROL, *version = "4.0.0";
	struct text t = { NULL, 0, 0 };
	unsigned int times = 1;
	int ch, fd, mode = O_RDWR;

	while ((ch = getopt(argc, argv, "N:V:n:r")) != -1)
		switch (ch) {
		case 'N':
			node = optarg;
			break;
		case 'V':
			version = optarg;
			break;
		case 'n':
			times = (unsigned int)number(optarg);
			break;
		case 'r':
			mode = O_RDONLY;
			break;
		default:
			return BROKEN;
		}
	request(&t, argv + optind, version);
	if ((fd = open(node, mode)) == -1)
		err(BROKEN, "%s", node);
	if ((errno = send(fd, t.chars, times, 0)) != 0)
		return failed();
	return EXIT_SUCCESS;
}

/* Sends `length' bytes that are no request. */
static int
do_noise(int argc __unused, char **argv)
{
	size_t length = (size_t)number(argv[1]);
	char *noise = calloc(1, length + 1);
	int fd = open(CONTROL, O_RDWR);

	if (fd == -1 || noise == NULL)
		err(BROKEN, CONTROL);
	memset(noise, '<', length);
	if ((errno = send(fd, noise, 1, 1)) != 0)
		return failed();
	return EXIT_SUCCESS;
}

/* query node: prints a disk's answers about itself. */
static int
do_query(int argc __unused, char **argv)
{
	struct dkwedge_info wedge;
	struct disk_strategy strategy;
	struct disklabel label;
	struct plistref ref;
	off_t size;
	unsigned int secsize;
	int bits, fd;

	if ((fd = open(argv[1], O_RDONLY)) == -1)
		return failed();
#define	ASK(command, data, format, ...) do {				\
	if (ioctl(fd, command, data) == -1)				\
		printf(#command "=%s\n", errname(errno));		\
	else								\
		printf(#command "=" format "\n", __VA_ARGS__);		\
} while (0)
	ASK(DIOCGMEDIASIZE, &size, "%jd", (intmax_t)size);
	ASK(DIOCGSECTORSIZE, &secsize, "%u", secsize);
	ASK(DIOCGWEDGEINFO, &wedge, "%" PRIu64 " %s %s", wedge.dkw_size,
	    (const char *)wedge.dkw_wname, wedge.dkw_ptype);
	ASK(DIOCGDINFO, &label, "%u %u %u %x", label.d_secsize,
	    label.d_secperunit, label.d_partitions[RAW_PART].p_size,
	    label.d_magic);
	ASK(DIOCGDEFLABEL, &label, "%u %u %u %x", label.d_secsize,
	    label.d_secperunit, label.d_partitions[RAW_PART].p_size,
	    label.d_magic);
	ASK(DIOCGCACHE, &bits, "%#x", bits);
	ASK(DIOCGSTRATEGY, &strategy, "%s", strategy.dks_name);
#ifdef DIOCGSECTORALIGN
	struct disk_sectoralign align;
	ASK(DIOCGSECTORALIGN, &align, "%u %u", align.dsa_firstaligned,
	    align.dsa_alignment);
#endif
#ifdef DIOCGPARTINFO
	struct partinfo part;
	ASK(DIOCGPARTINFO, &part, "%" PRIu64 " %u %u",
	    (uint64_t)part.pi_size, (unsigned int)part.pi_secsize,
	    (unsigned int)part.pi_fstype);
#endif
	memset(&ref, 0, sizeof(ref));
	if (ioctl(fd, DIOCGDISKINFO, &ref) == -1)
		printf("DIOCGDISKINFO=%s\n", errname(errno));
	else
		print(ref.pref_plist);
	return EXIT_SUCCESS;
}

/* read|write [-l] node offset length [byte]: prints the number of bytes moved. */
static int
do_transfer(int argc, char **argv)
{
	int write = strcmp(argv[0], "write") == 0, lift = 0, byte, fd;
	size_t length, i;
	uint8_t *buffer;
	off_t offset;
	ssize_t moved;

	if (argc > 1 && strcmp(argv[1], "-l") == 0) {
		lift = 1;
		argc--;
		argv++;
	}
	if (argc < 4)
		return BROKEN;
	offset = (off_t)number(argv[2]);
	length = (size_t)number(argv[3]);
	byte = argc > 4 ? (int)number(argv[4]) : 0xa5;
	if ((buffer = malloc(length)) == NULL)
		err(BROKEN, "malloc");
	memset(buffer, byte, length);
	if ((fd = open_node(argv[1], argv[0])) == -1)
		return failed();
	if (lift && ioctl(fd, DIOCWLABEL, &lift) == -1)
		return failed();
	moved = write ? pwrite(fd, buffer, length, offset) :
	    pread(fd, buffer, length, offset);
	if (moved == -1)
		return failed();
	printf("%zd\n", moved);
	for (i = 0; i < length; i++)
		if (buffer[i] != byte) {
			/* A write leaves the writer's buffer alone. */
			if (write)
				errx(BROKEN, "the buffer was changed");
			if (argc > 4) {
				printf("byte %zu is %#x\n", i, buffer[i]);
				return EXIT_FAILURE;
			}
		}
	return EXIT_SUCCESS;
}

/* A label's checksum, so that only its numbers can be found wrong. */
static void
seal(struct disklabel *label)
{
	uint16_t *word, sum = 0;

	label->d_checksum = 0;
	for (word = (uint16_t *)label; word < (uint16_t *)
	    &label->d_partitions[MIN(label->d_npartitions, MAXPARTITIONS)];
	    word++)
		sum ^= *word;
	label->d_checksum = sum;
}

/*
 * relabel node secsize ntracks npartitions: writes the node's own label with
 * these numbers in it.
 */
static int
do_relabel(int argc __unused, char **argv)
{
	struct disklabel label;
	int fd = open(argv[1], O_RDWR);

	if (fd == -1 || ioctl(fd, DIOCGDINFO, &label) == -1)
		err(BROKEN, "%s", argv[1]);
	label.d_secsize = (uint32_t)number(argv[2]);
	label.d_ntracks = (uint32_t)number(argv[3]);
	label.d_npartitions = (uint16_t)number(argv[4]);
	seal(&label);
	return ioctl(fd, DIOCWDINFO, &label) == -1 ? failed() : EXIT_SUCCESS;
}

/*
 * label node slice sectors: writes a disklabel, and an MBR before it unless the
 * slice begins at 0, as they lie on i386, amd64 and evbarm.  disklabel(8) would put it
 * where it thinks best.
 */
static int
do_label(int argc __unused, char **argv)
{
	uint32_t slice = (uint32_t)number(argv[2]);
	uint32_t sectors = (uint32_t)number(argv[3]), le[2];
	uint8_t block[SECTOR] = { 0 };
	struct disklabel label;
	int fd = open(argv[1], O_RDWR), on = 1;

	if (fd == -1 || ioctl(fd, DIOCGDEFLABEL, &label) == -1)
		err(BROKEN, "%s", argv[1]);
	/* Some drivers guard their labels on the raw partition too. */
	(void)ioctl(fd, DIOCWLABEL, &on);
	if (slice > 0) {
		block[446 + 4] = 169;
		le[0] = htole32(slice);
		le[1] = htole32(sectors - slice);
		memcpy(&block[446 + 8], le, sizeof(le));
		block[510] = 0x55;
		block[511] = 0xaa;
		if (pwrite(fd, block, SECTOR, 0) != SECTOR)
			err(BROKEN, "%s: MBR", argv[1]);
	}
	strlcpy(label.d_packname, "dmtest", sizeof(label.d_packname));
	memset(label.d_partitions, 0, sizeof(label.d_partitions));
	label.d_npartitions = RAW_PART + 1;
	label.d_secperunit = sectors;
	label.d_partitions[2].p_offset = slice;
	label.d_partitions[2].p_size = sectors - slice;
	label.d_partitions[RAW_PART].p_offset = 0;
	label.d_partitions[RAW_PART].p_size = sectors;
	label.d_partitions[0].p_offset = slice + 1000;
	label.d_partitions[0].p_size = sectors - slice - 1000;
	label.d_partitions[0].p_fstype = FS_BSDFFS;
	label.d_magic = label.d_magic2 = DISKMAGIC;
	seal(&label);
	/* The disk's driver read its label when it was opened. */
	if (ioctl(fd, DIOCSDINFO, &label) == -1)
		err(BROKEN, "%s: DIOCSDINFO", argv[1]);
	memset(block, 0, sizeof(block));
	memcpy(block + LABELOFFSET, &label, sizeof(label));
	if (pwrite(fd, block, SECTOR, (off_t)(slice + LABELSECTOR) * SECTOR) !=
	    SECTOR)
		err(BROKEN, "%s: label", argv[1]);
	return EXIT_SUCCESS;
}

static int
do_discard(int argc __unused, char **argv)
{
	int fd = open(argv[1], O_RDWR);

	if (fd == -1 || fdiscard(fd, (off_t)number(argv[2]),
	    (off_t)number(argv[3])) == -1)
		return failed();
	return EXIT_SUCCESS;
}

static int
do_sync(int argc __unused, char **argv)
{
	int fd = open(argv[1], O_RDWR), force = 0;

	if (fd == -1 || ioctl(fd, DIOCCACHESYNC, &force) == -1)
		return failed();
	return EXIT_SUCCESS;
}

/* open node r|w [command ...]: the command runs while the node is open. */
static int
do_open(int argc, char **argv)
{
	int fd = open_node(argv[1], argv[2]), status;
	pid_t child;

	if (fd == -1)
		return failed();
	if (argc < 4)
		return EXIT_SUCCESS;
	if ((child = fork()) == -1)
		err(BROKEN, "fork");
	if (child == 0) {
		close(fd);
		execvp(argv[3], argv + 3);
		err(BROKEN, "%s", argv[3]);
	}
	if (waitpid(child, &status, 0) == -1)
		err(BROKEN, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : BROKEN;
}

/* churn name times line line ...: loads and resumes one after the other. */
static int
do_churn(int argc, char **argv)
{
	uint64_t i, times = number(argv[2]);
	int error, fd = open(CONTROL, O_RDWR);

	if (fd == -1 || argc < 4)
		err(BROKEN, CONTROL);
	for (i = 0; i < times; i++) {
		error = tell(fd, "reload", argv[1],
		    argv[3 + i % (uint64_t)(argc - 3)]);
		if (error == 0)
			error = tell(fd, "resume", argv[1], NULL);
		if ((errno = error) != 0)
			return failed();
	}
	return EXIT_SUCCESS;
}

/*
 * verify node sectors times seed: reads and writes at random, and knows for
 * each sector what must be in it.
 */
static int
do_verify(int argc __unused, char **argv)
{
	uint64_t sectors = number(argv[2]), times = number(argv[3]), at, n, k;
	uint64_t *known = calloc((size_t)sectors, sizeof(*known));
	enum { MOST = 64 };
	static uint64_t buffer[MOST][SECTOR / sizeof(uint64_t)];
	int fd = open(argv[1], O_RDWR), write;
	size_t bytes, w;
	ssize_t moved;

	if (fd == -1 || known == NULL || sectors <= MOST)
		err(BROKEN, "%s", argv[1]);
	srandom((unsigned int)number(argv[4]));
	for (; times > 0; times--) {
		at = (uint64_t)random() % sectors;
		n = 1 + (uint64_t)random() % MOST;
		n = MIN(n, sectors - at);
		write = random() % 2;
		bytes = (size_t)n * SECTOR;
		for (k = 0; write && k < n; k++) {
			known[at + k] = times;
			for (w = 0; w < __arraycount(buffer[0]); w++)
				buffer[k][w] = times << 32 | (at + k);
		}
		moved = write ? pwrite(fd, buffer, bytes, (off_t)at * SECTOR) :
		    pread(fd, buffer, bytes, (off_t)at * SECTOR);
		if (moved == -1)
			return failed();
		if ((size_t)moved != bytes) {
			printf("%zd of %zu bytes at %" PRIu64 "\n", moved,
			    bytes, at);
			return EXIT_FAILURE;
		}
		for (k = 0; !write && k < n; k++)
			for (w = 0; w < __arraycount(buffer[0]); w++)
				if (known[at + k] != 0 && buffer[k][w] !=
				    (known[at + k] << 32 | (at + k))) {
					printf("sector %" PRIu64 " holds %#"
					    PRIx64 "\n", at + k, buffer[k][w]);
					return EXIT_FAILURE;
				}
	}
	return EXIT_SUCCESS;
}

/* The body of one process of do_storm. */
static int
storm(const char *prefix, uint64_t times, const char *line, unsigned int seed)
{
	static const char *const commands[] = {
		"create", "reload", "resume", "resume", "suspend", "info",
		"table", "status", "deps", "names", "clear", "rename", "remove",
	};
	int error, fd = open(CONTROL, O_RDWR);
	const char *command;
	char name[64];

	if (fd == -1)
		err(BROKEN, CONTROL);
	srandom(seed);
	for (; times > 0; times--) {
		command = commands[(size_t)random() % __arraycount(commands)];
		snprintf(name, sizeof(name), "%s%ld", prefix, random() % 3);
		error = tell(fd, command, name,
		    strcmp(command, "reload") == 0 ? line : NULL);
		switch (error) {
		case 0:
		case EEXIST:
		case ENXIO:
		case EBUSY:
			break;
		case EINVAL:
			/* A rename that does not say to what. */
			if (strcmp(command, "rename") == 0)
				break;
			/* FALLTHROUGH */
		default:
			printf("%s: %s\n", command, errname(error));
			return EXIT_FAILURE;
		}
	}
	return EXIT_SUCCESS;
}

/* storm prefix processes times line seed: processes with random commands. */
static int
do_storm(int argc __unused, char **argv)
{
	uint64_t i, processes = number(argv[2]);
	int status, result = EXIT_SUCCESS;
	pid_t child;

	for (i = 0; i < processes; i++) {
		if ((child = fork()) == -1)
			err(BROKEN, "fork");
		if (child == 0) {
			status = storm(argv[1], number(argv[3]), argv[4],
			    (unsigned int)(number(argv[5]) + i));
			exit(status);
		}
	}
	while (wait(&status) != -1)
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
			result = EXIT_FAILURE;
	return result;
}

/* One of several, at random. */
#define	ANY(of)	((of)[(size_t)random() % __arraycount(of)])

/* An object that a request may have somewhere, or should not. */
static void
wild_object(struct text *t, int deep)
{
	static const char *const numbers[] = {
		"0", "1", "2", "8", "64", "-1", "0x7fffffff", "0xffffffff",
		"36028797018963968", "0xffffffffffffffff",
		"-9223372036854775808", "99999999999999999999", "abc", "",
	};
	static const char *const texts[] = {
		"", "a", "%n%s%n", "/", "control", "&lt;&gt;", "&#0;", "\001",
		"\377\376", "linear", "striped", "zero", "error", "1 2 3 4",
		"2 8 0:0 0 0:0 0", "18446744073709551616", "/dev/null 0",
		"255 1", "1025 1", "@cancel_deferred_remove",
	};
	int i, n;

	switch (random() % (deep > 0 ? 8 : 5)) {
	case 0:
	case 1:
		add(t, "<integer>%s</integer>", ANY(numbers));
		break;
	case 2:
	case 3:
		add(t, "<string>%s</string>", ANY(texts));
		break;
	case 4:
		add(t, random() % 2 ? "<true/>" : "<data>AAEC</data>");
		break;
	case 5:
	case 6:
		add(t, "<array>");
		for (n = (int)(random() % 4); n > 0; n--)
			wild_object(t, deep - 1);
		add(t, "</array>");
		break;
	default:
		/* Deep, and in itself of no meaning. */
		n = (int)(random() % (random() % 8 == 0 ? 3000 : 20));
		for (i = 0; i < n; i++)
			add(t, "<array>");
		for (i = 0; i < n; i++)
			add(t, "</array>");
		if (n == 0)
			add(t, "<dict/>");
		break;
	}
}

/*
 * A request that may be good, but for one strange thing.  It names
 * no device but those with the prefix: others may be the machine's own.
 */
static void
wild_request(struct text *t, const char *prefix)
{
	static const char *const commands[] = {
		"version", "targets", "names", "create", "reload", "reload",
		"resume", "suspend", "clear", "remove", "info", "mknodes",
		"status", "table", "deps", "message", "setgeometry", "nonsense",
	};
	static const char *const keys[] = {
		"command", "version", "name", "uuid", "flags", "cmd_data",
		"event_nr", "sector", "message", "geometry", "unknown",
	};
	static const char *const words[] = { "start", "length", "type", "params" };
	static const char *const flags[] = {
		"0", "1", "8", "16", "4096", "16384", "131072", "1073741824",
		"0xffffffff",
	};
	int n;
	size_t cut;

	t->length = 0;
	add(t, "<plist version=\"1.0\"><dict>");
	add(t, "<key>command</key><string>%s</string>", ANY(commands));
	if (random() % 8 != 0)
		add(t, "<key>name</key><string>%s%ld</string>", prefix,
		    random() % 3);
	if (random() % 4 == 0)
		add(t, "<key>uuid</key><string>%s-u%ld</string>", prefix,
		    random() % 3);
	if (random() % 2 == 0)
		add(t, "<key>flags</key><integer>%s</integer>", ANY(flags));
	if (random() % 2 == 0) {
		add(t, "<key>cmd_data</key><array><dict><key>start</key>"
		    "<integer>0</integer><key>length</key><integer>64</integer>"
		    "<key>type</key><string>zero</string><key>params</key>"
		    "<string></string>");
		if (random() % 2 == 0) {
			add(t, "<key>%s</key>", ANY(words));
			wild_object(t, 2);
		}
		add(t, "</dict></array>");
	}
	/* Some of these for the second time. */
	for (n = (int)(random() % 3); n > 0; n--) {
		add(t, "<key>%s</key>", ANY(keys));
		wild_object(t, 3);
	}
	add(t, "</dict></plist>");
	if (random() % 16 == 0) {
		cut = (size_t)random() % t->length;
		t->chars[cut] = (char)random();
		t->length = strlen(t->chars);
	}
}

/*
 * wild prefix times seed: sends requests of all kinds.  However they end, the
 * driver must answer the next.
 */
static int
do_wild(int argc __unused, char **argv)
{
	uint64_t times = number(argv[2]), done = 0;
	struct text t = { NULL, 0, 0 };
	int fd = open(CONTROL, O_RDWR);

	if (fd == -1)
		err(BROKEN, CONTROL);
	srandom((unsigned int)number(argv[3]));
	for (; times > 0; times--) {
		wild_request(&t, argv[1]);
		done += send(fd, t.chars, 1, 1) == 0;
		if ((errno = tell(fd, "version", "none", NULL)) != 0)
			return failed();
	}
	printf("%s\n", done > 0 ? "some were good" : "none was good");
	return EXIT_SUCCESS;
}

/* Reads or writes all of something that must be there. */
static void
whole(int fd, int write, void *data, size_t length, uint64_t offset,
    const char *what)
{
	ssize_t moved = write ? pwrite(fd, data, length, (off_t)offset) :
	    pread(fd, data, length, (off_t)offset);

	if (moved == -1 || (size_t)moved != length)
		err(BROKEN, "%s: %zd of %zu bytes at %" PRIu64, what, moved,
		    length, offset);
}

/* parts name more line ...: a table, each line in a request of its own. */
static int
do_parts(int argc, char **argv)
{
	char name[256], line[2048], flags[32];
	char *args[] = { __UNCONST("command=reload"), name, line, flags, NULL };
	struct text t = { NULL, 0, 0 };
	int fd = open(CONTROL, O_RDWR), i;

	if (fd == -1)
		err(BROKEN, CONTROL);
	snprintf(name, sizeof(name), "name=%s", argv[1]);
	for (i = 3; i < argc; i++) {
		snprintf(line, sizeof(line), "line=%s", argv[i]);
		snprintf(flags, sizeof(flags), "flags:%s",
		    i + 1 < argc ? argv[2] : "0");
		t.length = 0;
		request(&t, args, "4.0.0");
		if ((errno = send(fd, t.chars, 1, 1)) != 0)
			return failed();
	}
	return EXIT_SUCCESS;
}

/*
 * replay log node [mark]: carries out on the node the entries of a log of
 * log-writes, up to the first mark of that text; prints the number of entries.
 */
static int
do_replay(int argc, char **argv)
{
	enum { MAGIC, VERSION, ENTRIES, SIZE };
	enum { DISCARD = 4, MARK = 8 };
	static uint64_t entry[SECTOR / sizeof(uint64_t)];
	const uint64_t magic = UINT64_C(0x6a736677736872);
	int log = open(argv[1], O_RDONLY), fd = open(argv[2], O_RDWR);
	uint64_t i, entries, start, length, flags, at = SECTOR;
	uint8_t *data;

	if (log == -1 || fd == -1)
		err(BROKEN, "%s", log == -1 ? argv[1] : argv[2]);
	whole(log, 0, entry, sizeof(entry), 0, argv[1]);
	if (le64toh(entry[MAGIC]) != magic || le64toh(entry[VERSION]) != 1 ||
	    (le64toh(entry[SIZE]) & 0xffffffff) != SECTOR)
		errx(BROKEN, "%s: no log of sectors of %d", argv[1], SECTOR);
	entries = le64toh(entry[ENTRIES]);
	for (i = 0; i < entries; i++) {
		whole(log, 0, entry, sizeof(entry), at, argv[1]);
		at += SECTOR;
		start = le64toh(entry[0]);
		length = le64toh(entry[1]);
		flags = le64toh(entry[2]);
		if ((flags & MARK) != 0) {
			if (argc > 3 && strcmp((char *)&entry[4], argv[3]) == 0)
				break;
			continue;
		}
		if ((flags & DISCARD) != 0 || length == 0)
			continue;
		if (length > 1 << 20 ||
		    (data = malloc((size_t)length * SECTOR)) == NULL)
			errx(BROKEN, "entry %" PRIu64 " of %" PRIu64
			    " sectors", i, length);
		whole(log, 0, data, (size_t)length * SECTOR, at, argv[1]);
		whole(fd, 1, data, (size_t)length * SECTOR, start * SECTOR,
		    argv[2]);
		free(data);
		at += length * SECTOR;
	}
	if (argc > 3 && i == entries)
		errx(BROKEN, "%s: no mark `%s'", argv[1], argv[3]);
	printf("%" PRIu64 "\n", i);
	return EXIT_SUCCESS;
}

/* fsync file: has a file's data on its disk. */
static int
do_fsync(int argc __unused, char **argv)
{
	int fd = open(argv[1], O_RDWR);

	if (fd == -1 || fsync(fd) == -1)
		return failed();
	return EXIT_SUCCESS;
}

/* The digest of a block and a salt, by the C library's SHA-256. */
static void
digest(const uint8_t *block, const uint8_t *salt, size_t salted, uint8_t *out)
{
	SHA256_CTX context;

	SHA256_Init(&context);
	SHA256_Update(&context, salt, salted);
	SHA256_Update(&context, block, TREE_BLOCK);
	SHA256_Final(out, &context);
}

/*
 * tree: writes the tree of digests over a device's blocks of 4 KiB, from the
 * second block of a file on, as veritysetup(8) makes it, and prints the root.
 */
static int
do_tree(int argc __unused, char **argv)
{
	const size_t blocks = number(argv[2]), salted = strlen(argv[4]);
	const uint8_t *salt = (const uint8_t *)argv[4];
	uint8_t block[TREE_BLOCK], root[SHA256_DIGEST_LENGTH];
	uint8_t *levels[8];
	size_t counts[8], level = 0, i, n;
	int in = open(argv[1], O_RDONLY);
	FILE *out = fopen(argv[3], "w");

	if (in == -1 || out == NULL)
		err(BROKEN, "%s, %s", argv[1], argv[3]);
	n = blocks;
	do {
		counts[level] = howmany(n, TREE_BLOCK / sizeof(root));
		levels[level] = calloc(counts[level], TREE_BLOCK);
		if (levels[level] == NULL)
			err(BROKEN, "memory");
		for (i = 0; i < n; i++) {
			const uint8_t *from = block;

			if (level > 0)
				from = levels[level - 1] + i * TREE_BLOCK;
			else if (read(in, block, TREE_BLOCK) != TREE_BLOCK)
				err(BROKEN, "%s", argv[1]);
			digest(from, salt, salted, levels[level] + i * sizeof(root));
		}
		n = counts[level++];
	} while (n > 1 && level < __arraycount(levels));
	digest(levels[level - 1], salt, salted, root);
	memset(block, 0, sizeof(block));
	fwrite(block, TREE_BLOCK, 1, out);
	while (level-- > 0)
		fwrite(levels[level], TREE_BLOCK, counts[level], out);
	if (fclose(out) != 0)
		err(BROKEN, "%s", argv[3]);
	for (i = 0; i < sizeof(root); i++)
		printf("%02x", root[i]);
	printf("\n");
	return EXIT_SUCCESS;
}

/* memory: megabytes that are free, and pages that have ever been swapped out. */
static int
do_memory(int argc __unused, char **argv __unused)
{
	int mib[] = { CTL_VM, VM_UVMEXP2 };
	struct uvmexp_sysctl uvm;
	size_t size = sizeof(uvm);

	if (sysctl(mib, __arraycount(mib), &uvm, &size, NULL, 0) == -1)
		err(BROKEN, "vm.uvmexp2");
	printf("free=%" PRIu64 "\nout=%" PRIu64 "\n",
	    (uint64_t)uvm.free * (uint64_t)uvm.pagesize >> 20,
	    (uint64_t)uvm.pgswapout);
	return EXIT_SUCCESS;
}

/* hog megabytes rounds: fills memory in each round, and checks it. */
static int
do_hog(int argc __unused, char **argv)
{
	size_t bytes = (size_t)number(argv[1]) << 20, i, step = 512;
	uint64_t round, rounds = number(argv[2]), *words = malloc(bytes);

	if (words == NULL)
		err(BROKEN, "malloc");
	for (round = 1; round <= rounds; round++) {
		for (i = 0; i < bytes / sizeof(*words); i += step)
			words[i] = round << 48 | i;
		for (i = 0; i < bytes / sizeof(*words); i += step)
			if (words[i] != (round << 48 | i)) {
				printf("word %zu is %#" PRIx64 "\n", i,
				    words[i]);
				return EXIT_FAILURE;
			}
	}
	return EXIT_SUCCESS;
}

static const struct {
	const char *name;
	int	least;
	int	(*run)(int, char **);
	const char *usage;
} commands[] = {
	{ "ioctl", 1, do_ioctl, "[-r] [-N node] [-V version|none] [-n times] "
	  "[key=text] [key:number] [line=table-line] [word=text] [data] "
	  "[raw=xml]" },
	{ "noise", 2, do_noise, "length" },
	{ "query", 2, do_query, "node" },
	{ "read", 4, do_transfer, "node offset length [byte]" },
	{ "write", 4, do_transfer, "[-l] node offset length [byte]" },
	{ "label", 4, do_label, "node slice sectors" },
	{ "relabel", 5, do_relabel, "node secsize ntracks npartitions" },
	{ "discard", 4, do_discard, "node offset length" },
	{ "sync", 2, do_sync, "node" },
	{ "open", 3, do_open, "node r|w [command ...]" },
	{ "churn", 4, do_churn, "name times line ..." },
	{ "verify", 5, do_verify, "node sectors times seed" },
	{ "storm", 6, do_storm, "prefix processes times line seed" },
	{ "wild", 4, do_wild, "prefix times seed" },
	{ "parts", 4, do_parts, "name more line ..." },
	{ "replay", 3, do_replay, "log node [mark]" },
	{ "fsync", 2, do_fsync, "file" },
	{ "tree", 5, do_tree, "node blocks file salt" },
	{ "memory", 1, do_memory, "" },
	{ "hog", 3, do_hog, "megabytes rounds" },
};

int
main(int argc, char **argv)
{
	size_t i;

	for (i = 0; argc > 1 && i < __arraycount(commands); i++)
		if (strcmp(argv[1], commands[i].name) == 0 &&
		    argc - 1 >= commands[i].least)
			return commands[i].run(argc - 1, argv + 1);
	for (i = 0; i < __arraycount(commands); i++)
		fprintf(stderr, "usage: h_dm %s %s\n", commands[i].name,
		    commands[i].usage);
	return BROKEN;
}
