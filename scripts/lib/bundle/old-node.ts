// Stands at the beginning of every command, for a Node.js that is too old for the rest of it.
{
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) {
    const name = `${process.argv[1]}`.replace(/.*\/|\.[cm]js$/g, '')
    const message = `needs Node.js 20.19 or newer, this is ${process.versions.node}`
    console.error(`${name}: ${message}: README.md says in step 1 how to get one`)
    process.exit(78)
  }
}
