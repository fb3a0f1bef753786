let looked = false

/**
 * Prints text on standard output. A reader that has seen enough (`| head`) is no error.
 *
 * Only who prints looks at standard output: making a stream of it takes 1.5 ms (profiled), which a
 * silent ban need not spend.
 *
 * @param written told when it has been taken, or why not
 */
export function print(text: string, written?: (error?: Error | null) => void): void {
  if (!looked) {
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error
    })
    looked = true
  }
  process.stdout.write(text, written)
}
